"""Pitch as FastSpeech 2 predicts it: by its wavelet transform, frame by frame, or as one number a phone.

`CwtPitch` is what HyperTTS releases (after Ren et al. 2021, appendix D); `PhonePitch` what small models learn from little.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttsadapt.backbones.base import Batch
from ttsadapt.backbones.parts import PlacedPredictor, VariancePredictor, owners, repeated, shares

SCALES = 10
"""octaves of the wavelet transform"""
_STEP = 0.005
"""seconds between frames that the scales are counted in, whatever the true distance"""
LOWEST, HIGHEST, BINS = 50.0, 1100.0, 256
"""Hz, and how many mel-spaced steps lie between"""


@dataclass(frozen=True)
class Term:
    """A prediction and what was wanted, at every position of a padded batch."""

    value: Tensor
    """(B, L, C); (B, C) where the unit is utterances"""
    target: Tensor
    unit: str
    norm: int = 1
    """1: L1, 2: L2, 0: a yes-or-no whose logit is `value`"""
    sigma: float = 1.0
    """scale of the likelihood behind it, see heads.Continuous"""


@dataclass
class Spread:
    """How phones lie over frames."""

    durations: Tensor
    """(B, P) long"""
    phone_mask: Tensor
    frame_mask: Tensor

    owner: Tensor = field(init=False)
    """(B, T) phone of each frame"""

    def __post_init__(self) -> None:
        self.owner = owners(self.durations, self.frame_mask.shape[1])

    def over(self, x: Tensor) -> Tensor:
        """(B, P, C) -> (B, T, C), zero beyond the last frame."""
        return repeated(x, self.owner) * self.frame_mask[..., None]

    def means(self, values: Tensor) -> Tensor:
        """(B, T) -> (B, P): over each phone's frames."""
        sums = torch.zeros(self.durations.shape, dtype=values.dtype, device=values.device)
        return sums.scatter_add(1, self.owner, values * self.frame_mask) / self.durations.clamp_min(1)

    def shares(self) -> Tensor:
        """(B, T): where in its phone each frame's centre lies, in (0, 1)."""
        return shares(self.durations, self.owner)


class PitchPart(nn.Module, ABC):
    """Predicts the melody and embeds it."""

    @abstractmethod
    def learn(self, phones: Tensor, frames: Tensor, spread: Spread, batch: Batch) -> tuple[Tensor, dict[str, Term]]:
        """(B, P, C) and, repeated, (B, T, C) -> the embedding (B, T, C) of the true melody, and what was predicted."""

    @abstractmethod
    def predict(self, phones: Tensor, frames: Tensor, spread: Spread) -> Tensor:
        """The embedding (B, T, C) of the predicted melody."""


class CwtPitch(PitchPart):
    """Wavelet coefficients and voicing of every frame; mean and deviation of log F0 from the state of the first phone."""

    def __init__(
        self,
        width: int = 256,
        hidden: int = 256,
        narrow: int = 128,
        kernel: int = 5,
        dropout: float = 0.5,
        rows: int = 300,
        spread: float = 0.8,
    ) -> None:
        """`rows`: of the embedding, of which BINS are used; `spread`: what the predicted deviation is multiplied by."""
        super().__init__()
        self.spread = spread
        self.entry = nn.Linear(width, narrow)
        self.predictor = PlacedPredictor(narrow, hidden, kernel, dropout, outputs=SCALES + 1)
        self.moments = nn.ModuleList([nn.Linear(width, narrow), nn.Linear(narrow, narrow), nn.Linear(narrow, 2)])
        self.embedding = bin_table(rows, width)

    def learn(self, phones: Tensor, frames: Tensor, spread: Spread, batch: Batch) -> tuple[Tensor, dict[str, Term]]:
        coefficients, unvoiced, moments = self._outputs(phones, frames, spread.frame_mask)
        terms = {
            "cwt": Term(coefficients, batch["cwt"], "frames", 1, 0.4),
            "voicing": Term(unvoiced[..., None], (~batch["voiced"]).long()[..., None], "frames", 0),
            "pitch_mean": Term(moments[:, :1], batch["moments"][:, :1], "utterances", 1, 0.1),
            "pitch_deviation": Term(moments[:, 1:], batch["moments"][:, 1:], "utterances", 1, 0.05),
        }
        hertz = melody(batch["cwt"], batch["moments"], spread.frame_mask) * batch["voiced"]
        return self.embedding(coarse(hertz)), terms

    def predict(self, phones: Tensor, frames: Tensor, spread: Spread) -> Tensor:
        coefficients, unvoiced, moments = self._outputs(phones, frames, spread.frame_mask)
        moments = moments * moments.new_tensor([1.0, self.spread])
        return self.embedding(coarse(melody(coefficients, moments, spread.frame_mask) * (unvoiced <= 0)))

    def _outputs(self, phones: Tensor, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, SCALES), (B, T) logits of "unvoiced", (B, 2)."""
        out = self.predictor.values(self.entry(damped(frames)), mask)
        x = phones[:, 0]
        for i, layer in enumerate(self.moments):
            x = layer(x.relu() if i else x)
        return out[..., :SCALES], out[..., SCALES], x


class PhonePitch(PitchPart):
    """The mean of each phone's log F0, in deviations over the pretraining data, added through a convolution."""

    def __init__(self, width: int = 256, hidden: int = 256, kernel: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.predictor = VariancePredictor(width, hidden, kernel, dropout)
        self.embedding = nn.Conv1d(1, width, kernel, padding=kernel // 2)

    def learn(self, phones: Tensor, frames: Tensor, spread: Spread, batch: Batch) -> tuple[Tensor, dict[str, Term]]:
        wanted = spread.means(batch["pitch"])
        guess = self.predictor(damped(phones), spread.phone_mask)
        return self._embedded(wanted, spread), {"pitch": Term(guess[..., None], wanted[..., None], "phones", 2, 0.21)}

    def predict(self, phones: Tensor, frames: Tensor, spread: Spread) -> Tensor:
        return self._embedded(self.predictor(damped(phones), spread.phone_mask), spread)

    def _embedded(self, pitch: Tensor, spread: Spread) -> Tensor:
        return spread.over(self.embedding((pitch * spread.phone_mask)[:, None]).mT)


def bin_table(rows: int, width: int) -> nn.Embedding:
    """Embedding of bins; the first stands for nothing and stays zero."""
    table = nn.Embedding(rows, width, padding_idx=0)
    nn.init.normal_(table.weight, std=width**-0.5)
    nn.init.zeros_(table.weight[0].detach())
    return table


def damped(x: Tensor, share: float = 0.1) -> Tensor:
    """x, through which only this share of the gradient goes back: predictors shall follow the encoder, not lead it."""
    return x.detach() + share * (x - x.detach())


def coarse(hertz: Tensor) -> Tensor:
    """Hz -> 1 .. BINS - 1, evenly over the mel scale from LOWEST to HIGHEST; what is unvoiced (0) is 1."""
    low, high = (1127 * math.log1p(f / 700) for f in (LOWEST, HIGHEST))
    mel = 1127 * torch.log1p(hertz / 700)
    return ((mel - low) * ((BINS - 2) / (high - low)) + 1).clamp(1, BINS - 1).add(0.5).long()


def melody(coefficients: Tensor, moments: Tensor, mask: Tensor) -> Tensor:
    """(B, T, SCALES), (B, 2) mean and deviation of log F0, (B, T) -> (B, T) Hz: inverse transform, put back to its scale."""
    gain = (torch.arange(SCALES, device=mask.device) + 3.5) ** -2.5
    wave, count = (coefficients @ gain.to(coefficients.dtype)) * mask, mask.sum(1, keepdim=True)
    centred = (wave - wave.sum(1, keepdim=True) / count) * mask
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    logarithm = centred / deviation.clamp_min(1e-5) * moments[:, 1:] + moments[:, :1]
    return logarithm.clamp(max=math.log(2 * HIGHEST)).exp()  # an untrained model may ask for anything


def wavelets(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) -> (T, SCALES): continuous transform with the Mexican hat, an octave a scale (Torrence & Compo 1998, section 3)."""
    size = 1 << max(len(signal) - 1, 1).bit_length()
    omega = 2 * np.pi * np.fft.fftfreq(size, _STEP)
    scale = (2 * _STEP * 2.0 ** np.arange(SCALES))[:, None]
    hat = (scale * omega) ** 2 * np.exp(-((scale * omega) ** 2) / 2) / math.sqrt(math.gamma(2.5))
    spectrum = np.fft.fft(signal, size) * hat * np.sqrt(2 * np.pi * scale / _STEP)
    return np.fft.ifft(spectrum, axis=1)[:, : len(signal)].real.T


def moments_of(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean and deviation; a constant has the deviation 1e-5, so that it can be divided by."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), max(float(array.std()), 1e-5)
