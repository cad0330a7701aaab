"""HiFT's pitch and its source: what the vocal folds would do (Wang et al. 2019, neural source-filter)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.cosyvoice.hift_layers import NormedConv

AMPLITUDE, NOISE, VOICED = 0.1, 0.003, 10.0
"""of a harmonic, of the noise beside it, and the pitch in Hz above which a frame is voiced"""


class PitchPredictor(nn.Module):
    """Five convolutions and a linear: (B, n_mels, T) -> (B, T) in Hz, in the precision of the mel. Causal: three frames ahead at most."""

    def __init__(self, n_mels: int, width: int, causal: bool) -> None:
        super().__init__()
        first = NormedConv(n_mels, width, 4 if causal else 3, pad="right" if causal else "same")
        others = [NormedConv(width, width, 3, pad="left" if causal else "same") for _ in range(4)]
        self.condnet = nn.ModuleDict({str(2 * i): conv for i, conv in enumerate([first, *others])})
        self.classifier = nn.Linear(width, 1)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel
        for conv in self.condnet.values():
            x = F.elu(conv(x))
        linear = self.classifier
        return F.linear(x.mT, linear.weight.to(x.dtype), linear.bias.to(x.dtype))[..., 0].abs()


class Source(nn.Module):
    """Pitch at the rate of the mel -> a sum of harmonics with some noise, or louder noise where unvoiced, at the rate of the samples."""

    def __init__(self, sample_rate: int, hop: int, harmonics: int, interpolated: bool, uniform: bool) -> None:
        """`interpolated`: phases are summed up once a frame and interpolated between; linearly, or, with `uniform`, not at all.

        `uniform`: the noise is uniform in [0, 1), as the authors draw it for version 3, else normal.
        """
        super().__init__()
        self.sample_rate, self.hop, self.interpolated, self.uniform = sample_rate, hop, interpolated, uniform
        self.l_linear = nn.Linear(harmonics + 1, 1)

    def forward(self, pitch: Tensor, generator: torch.Generator) -> Tensor:
        """(B, T) Hz -> (B, T * hop)."""
        tones = self.l_linear.in_features
        turns = torch.rand(len(pitch), tones, generator=generator)
        return self.mix(pitch, turns.to(pitch), self._noise(len(pitch), pitch.shape[1] * self.hop, tones, generator).to(pitch))

    def _noise(self, batch: int, samples: int, tones: int, generator: torch.Generator) -> Tensor:
        """(B, samples, tones). The order in which the numbers are laid down is that of the authors' code, version by version."""
        if self.uniform:
            return torch.rand(batch, samples, tones, generator=generator)
        memory = torch.empty(batch, tones, samples)
        return memory.mT.normal_(generator=generator) if self.interpolated else memory.normal_(generator=generator).mT

    def mix(self, pitch: Tensor, turns: Tensor, noise: Tensor) -> Tensor:
        """As `forward`, with the draws given: starting phases `turns` (B, 1 + harmonics) in [0, 1), `noise` (B, T * hop, 1 + harmonics)."""
        tones = self.l_linear.in_features
        rate = pitch[..., None] * torch.arange(1, tones + 1, device=pitch.device) / self.sample_rate  # turns a sample
        waves = AMPLITUDE * (self._by_frame(rate) if self.interpolated else self._by_sample(rate, turns))
        voiced = (pitch > VOICED).repeat_interleave(self.hop, 1)[..., None]
        waves = torch.where(voiced, waves + NOISE * noise, AMPLITUDE / 3 * noise)
        return self.l_linear(waves)[..., 0].tanh()

    def _by_sample(self, rate: Tensor, turns: Tensor) -> Tensor:
        """(B, T, tones) -> (B, T * hop, tones); the first tone starts at 0, each other somewhere."""
        start = (2 * turns - 1) * torch.pi
        start[:, 0] = 0
        sums = rate.repeat_interleave(self.hop, 1).cumsum(1)
        return (2 * torch.pi * (sums % 1) + start[:, None]).sin()

    def _by_frame(self, rate: Tensor) -> Tensor:
        """The authors add starting phases to the first sample only, which their interpolation to frames then never looks at."""
        phase = (rate % 1).cumsum(1) * 2 * torch.pi * self.hop
        mode = "nearest" if self.uniform else "linear"
        return F.interpolate(phase.mT, scale_factor=float(self.hop), mode=mode).mT.sin()
