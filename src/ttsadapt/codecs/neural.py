"""A codec that is fitted on a corpus in half a minute: residual k-means, and a convolutional decoder that learns its errors away.

The embedded stand-in for EnCodec and Mimi: levels of one codebook each, every later one over what the earlier ones left.
It hears warped copies of the recordings too, so that it is not surprised by voices that it was not fitted on.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ttsadapt.codecs.convolutions import ResidualUnit, cut
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.kmeans import KMeansCodec
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.codecs.warping import warped
from ttsadapt.reproducible import reproducible

STEPS, BATCH = 24, 32
"""of codes in a training example, and examples of an optimiser step"""


class Refiner(nn.Module):
    """Quantised frames -> what they were before, as a correction; it starts as none."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_mels: int, width: int, units: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.opening = nn.Conv1d(n_mels, width, kernel, padding=kernel // 2)
        self.body = nn.Sequential(*(ResidualUnit(width, kernel) for _ in range(units)))
        self.closing = nn.Conv1d(width, n_mels, 1)
        nn.init.zeros_(self.closing.weight)
        nn.init.zeros_(self.closing.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def forward(self, mel: Tensor) -> Tensor:
        """(B, T, n_mels) nats -> (B, T, n_mels) nats"""
        hidden = self.opening(((mel - self.mean) / self.std).mT)
        return mel + self.closing(self.body(hidden)).mT * self.std


class NeuralCodec(KMeansCodec):
    """`levels` codes of `codewords` each for every `stack` frames."""

    def __init__(
        self,
        levels: int = 8,
        codewords: int = 256,
        stack: int = 2,
        steps: int = 300,
        width: int = 128,
        lr: float = 2e-3,
        dynamic_range: float = 90.0,
        vectors: int = 30_000,
        iterations: int = 8,
        seed: int = 0,
        mel: MelSpectrogram | None = None,
        vocoder: GriffinLim | None = None,
    ) -> None:
        """`steps`, `width`, `lr` of the decoder; the rest as in `KMeansCodec`."""
        mel = mel or MelSpectrogram()
        super().__init__([(0, mel.n_mels)] * levels, codewords, stack, dynamic_range, vectors, iterations, seed, mel, vocoder)
        self.steps, self.lr = steps, lr
        self.refiner = Refiner(mel.n_mels, width)

    def fit(self, recordings: Iterable[Tensor]) -> None:
        """Codebooks, then the decoder, on recordings (samples,) and warped copies of them; two progress bars."""
        with reproducible(self.seed):
            frames = [self.mel(audio) for audio in recordings]
            frames += warped(frames)
            self.fit_frames(frames)
            self._refine(frames, [self.quantise(mel) for mel in frames])

    def _refine(self, frames: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        """A random number of levels in each step: what generated speech gets wrong is mostly in the later ones."""
        every = torch.cat([mel.clamp_min(self.floor) for mel in frames])
        self.refiner.mean, self.refiner.std = every.mean(0), every.std(0).clamp_min(1e-3)
        likely = torch.tensor([float(len(mel)) for mel in frames])
        optimizer = torch.optim.AdamW(self.refiner.parameters(), self.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=max(self.steps, 4), pct_start=0.15)
        self.refiner.train()
        for _ in tqdm(range(self.steps), "codec decoder", unit="step", leave=False):
            used = self.levels if torch.rand(()) < 0.6 else int(torch.randint(self.levels, ())) + 1
            rows = torch.multinomial(likely, BATCH, replacement=True).tolist()
            starts = [int(torch.rand(()) * max(len(codes[i]) - STEPS + 1, 1)) for i in rows]
            chosen = torch.stack([cut(codes[i][:, :used], start, STEPS) for i, start in zip(rows, starts)])
            coded = super().decode_mel(chosen.flatten(0, 1)).unflatten(0, (BATCH, -1))
            clean = torch.stack([cut(frames[i], start * self.stack, STEPS * self.stack) for i, start in zip(rows, starts)])
            loss = ((self.refiner(coded) - clean.clamp_min(self.floor)) / self.refiner.std).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.refiner.eval().requires_grad_(False)

    @torch.no_grad()
    def decode_mel(self, codes: Tensor) -> Tensor:
        """(steps, levels) -> (steps * stack, n_mels) nats"""
        mel = super().decode_mel(codes)
        return self.refiner(mel[None])[0] if len(mel) else mel

    def state(self) -> dict[str, Any]:
        return super().state() | {"refiner": self.refiner.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the codebooks were fitted under other settings."""
        super().restore(state)
        self.refiner.load_state_dict(state["refiner"])
        self.refiner.eval().requires_grad_(False)
