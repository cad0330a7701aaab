"""A codec that is fitted on a corpus in two minutes: a semantic level, residual k-means, and a decoder that learns their errors away.

The embedded stand-in for EnCodec and Mimi: levels of one codebook each, every later one over what the earlier ones left. As in
Mimi (Defossez et al. 2024, section 3.3.2) the first level says what is spoken. The second says by whom, as it changes slowly; the
others how exactly: first the envelope, then the harmonics. They are clustered on the frames themselves, warped copies included, so
that they are not surprised by voices they were not fitted on.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.bars import Bar
from ttsadapt.codecs.convolutions import ResidualUnit, cut
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.kmeans import KMeansCodec
from ttsadapt.codecs.levels import LevelTokens
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.codecs.semantic import STRIDE, SemanticCodec
from ttsadapt.codecs.warping import warped
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import ConfigError
from ttsadapt.reproducible import reproducible

SLOW = 12
"""steps before and after one over which what makes a voice is averaged: half a second each way"""
ENVELOPE = 25
"""quefrencies of the mel cepstrum that hold the envelope; those above hold the harmonics"""
STEPS, BATCH = 24, 32
"""of codes in a training example of the decoder, and examples of an optimiser step"""


class Refiner(nn.Module):
    """Quantised frames, and what the first level alone says of them -> what they were, as a correction; it starts as none."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_mels: int, width: int, units: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.opening = nn.Conv1d(2 * n_mels, width, kernel, padding=kernel // 2)
        self.body = nn.Sequential(*(ResidualUnit(width, kernel) for _ in range(units)))
        self.closing = nn.Conv1d(width, n_mels, 1)
        nn.init.zeros_(self.closing.weight)
        nn.init.zeros_(self.closing.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def forward(self, mel: Tensor, first: Tensor) -> Tensor:
        """(B, T, n_mels) nats each -> (B, T, n_mels) nats"""
        hidden = self.opening(torch.cat([(mel - self.mean) / self.std, first / self.std], -1).mT)
        return mel + self.closing(self.body(hidden)).mT * self.std


class NeuralCodec(LevelTokens):
    """25 steps a second of `levels` codes 0 .. codewords - 1; code c of level l is token l * codewords + c."""

    def __init__(
        self,
        levels: int = 8,
        codewords: int = 256,
        steps: int = 300,
        semantic_steps: int = 800,
        width: int = 128,
        lr: float = 2e-3,
        dynamic_range: float = 90.0,
        vectors: int = 30_000,
        iterations: int = 8,
        seed: int = 0,
        mel: MelSpectrogram | None = None,
        vocoder: GriffinLim | None = None,
    ) -> None:
        """`steps`, `semantic_steps`: of the decoder and of the first level, which have `width` and `lr` in common. `mel`: as in
        `SemanticCodec`. `dynamic_range`, `vectors`, `iterations`: as in `KMeansCodec`.
        """
        if levels < 3:
            raise ConfigError(f"codec.levels={levels}: give at least 3, of one level is SemanticCodec")
        self.mel = mel or MelSpectrogram(hop=320)
        self.vocoder = vocoder or GriffinLim(self.mel)
        self.codewords, self.steps, self.lr, self.seed = codewords, steps, lr, seed
        self.dynamic_range = dynamic_range
        self.semantic = SemanticCodec(codewords, width=width, steps=semantic_steps, lr=lr, seed=seed, mel=self.mel, voiced=False)
        everything, envelope = (0, self.mel.n_mels), levels // 2
        bands = [(0, ENVELOPE)] * envelope + [(ENVELOPE, self.mel.n_mels)] * (levels - 2 - envelope)
        self.slow = KMeansCodec([everything], codewords, 1, torch.inf, vectors, iterations, seed, self.mel, self.vocoder)
        self.rest = KMeansCodec(bands, codewords, STRIDE, torch.inf, vectors, iterations, seed, self.mel, self.vocoder)
        self.refiner = Refiner(self.mel.n_mels, width)
        self.floor = -torch.inf

    @property
    def levels(self) -> int:
        return 2 + self.rest.levels

    @property
    def rate(self) -> float:
        """Tokens a second, all levels counted."""
        return self.semantic.rate * self.levels

    # Learning ----------------------------------------------------------------------------------------------------------

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """On recordings (samples,) and warped copies of them: first level, codebooks, decoder; a progress bar for each."""
        with reproducible(self.seed):
            mels = [self.mel(audio) for audio in recordings]
            mels += warped(mels)
            loudest = torch.cat([mel.amax(-1) for mel in mels]).quantile(0.999).item() if mels else 0.0
            self.floor = loudest - self.dynamic_range / 20 * 2.302585  # dB -> nats of magnitude
            mels = [mel.clamp_min(self.floor) for mel in mels]
            self.semantic.fit_frames(mels, phones)
            first = [self.semantic.quantise(mel) for mel in mels]
            left = [self._left(mel, self._said(codes)) for mel, codes in zip(mels, first)]
            self.slow.fit_frames([slowly(part) for part in left])
            voices = [self.slow.quantise(slowly(part)) for part in left]
            left = [part - self._sung(voice) for part, voice in zip(left, voices)]
            self.rest.fit_frames(left)
            parts = zip(first, voices, left)
            self._refine(mels, [torch.cat([codes[:, None], voice, self.rest.quantise(part)], 1) for codes, voice, part in parts])

    @staticmethod
    def _left(mel: Tensor, said: Tensor) -> Tensor:
        """(2 steps, n_mels) of a mel that is not `said`."""
        return mel[torch.arange(len(said)).clamp_max(len(mel) - 1)] - said

    def _said(self, first: Tensor) -> Tensor:
        return self.semantic.decode_mel(first)

    def _sung(self, voice: Tensor) -> Tensor:
        """(steps, 0 or 1) codes of the second level -> (2 steps, n_mels)"""
        return self.slow.decode_mel(voice).repeat_interleave(STRIDE, 0)

    def _quantised(self, mel: Tensor, first: Tensor) -> Tensor:
        """(steps, levels)"""
        left = self._left(mel, self._said(first))
        voice = self.slow.quantise(slowly(left))
        return torch.cat([first[:, None], voice, self.rest.quantise(left - self._sung(voice))], 1)

    def _refine(self, frames: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        """A random number of levels in each step: what generated speech gets wrong is mostly in the later ones."""
        every = torch.cat(list(frames))
        self.refiner.mean, self.refiner.std = every.mean(0), every.std(0).clamp_min(1e-3)
        bases = [self._said(c[:, 0]) for c in codes]
        likely = torch.tensor([float(len(mel)) for mel in frames])
        optimizer = torch.optim.AdamW(self.refiner.parameters(), self.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=max(self.steps, 4), pct_start=0.15)
        self.refiner.train()
        for _ in Bar(range(self.steps), "codec decoder", unit="step", leave=False):
            used = self.levels if torch.rand(()) < 0.6 else int(torch.randint(self.levels, ())) + 1
            rows = torch.multinomial(likely, BATCH, replacement=True).tolist()
            starts = [int(torch.rand(()) * max(len(codes[i]) - STEPS + 1, 1)) for i in rows]
            chosen = torch.stack([cut(codes[i][:, 1:used], start, STEPS) for i, start in zip(rows, starts)])
            base, clean = (
                torch.stack([cut(x[i], start * STRIDE, STEPS * STRIDE) for i, start in zip(rows, starts)]) for x in (bases, frames)
            )
            coded = base + self._details(chosen.flatten(0, 1)).unflatten(0, (BATCH, -1))
            loss = ((self.refiner(coded, base) - clean) / self.refiner.std).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.refiner.eval().requires_grad_(False)

    # Coding ------------------------------------------------------------------------------------------------------------

    def codes(self, audio: Tensor) -> Tensor:
        """(samples,) -> (steps, levels) long, each in 0 .. codewords - 1; the length is rounded to whole steps."""
        mel = self.mel(audio).clamp_min(self.floor)
        return self._quantised(mel, self.semantic.quantise(mel))

    @torch.no_grad()
    def decode_mel(self, codes: Tensor) -> Tensor:
        """(steps, levels) -> (2 steps, n_mels) nats; of fewer levels than there are, what the first ones say."""
        first = self._said(codes[:, 0])
        mel = first + self._details(codes[:, 1:])
        return self.refiner(mel[None], first[None])[0] if len(mel) else mel

    def _details(self, codes: Tensor) -> Tensor:
        """(steps, levels - 1 or fewer) of all levels but the first -> (2 steps, n_mels)"""
        return self._sung(codes[:, :1]) + self.rest.decode_mel(codes[:, 1:])

    def embedding(self) -> Tensor:
        """(tokens, D): the codeword of every token, levels of different kinds side by side, each of length 1 on average."""
        return torch.block_diag(self.semantic.embedding(), self.slow.embedding(), self.rest.embedding())

    # Keeping -----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        books = {"semantic": self.semantic.state(), "slow": self.slow.state(), "rest": self.rest.state()}
        return books | {"refiner": self.refiner.state_dict(), "floor": self.floor}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when it was fitted under other settings."""
        self.semantic.restore(state["semantic"])
        self.slow.restore(state["slow"])
        self.rest.restore(state["rest"])
        self.refiner.load_state_dict(state["refiner"])
        self.refiner.eval().requires_grad_(False)
        self.floor = float(state["floor"])


def slowly(frames: Tensor) -> Tensor:
    """(2 steps, n_mels) -> (steps, n_mels): averages over the steps around each, fewer of them near the ends."""
    steps = frames.unflatten(0, (-1, STRIDE)).mean(1)
    size = 2 * SLOW + 1
    return F.avg_pool1d(steps.T[None], size, stride=1, padding=SLOW, count_include_pad=False)[0].T
