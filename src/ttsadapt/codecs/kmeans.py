"""A codec that is fitted on a corpus in seconds: residual k-means on log-mel frames, Griffin-Lim on the way back.

A stand-in for a neural codec where nothing can be downloaded. Levels quantise bands of the mel cepstrum one after the other:
a later level over the same band quantises what the earlier ones left (residual vector quantisation, Juang & Gray 1982), a
level over another band is independent of them (product quantisation). High quefrencies hold the harmonics, so giving them a
level of their own keeps the pitch, which one codebook over everything would average away.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ttsadapt.bars import Bar
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.levels import LevelTokens
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, ConfigError, DataError


class KMeansCodec(LevelTokens):
    """`levels` tokens for every `stack` frames; level l's code c is token l * codewords + c."""

    def __init__(
        self,
        bands: Sequence[Sequence[int]] = ((0, 25), (0, 25), (25, 80)),
        codewords: int = 512,
        stack: int = 3,
        dynamic_range: float = 80.0,
        vectors: int = 40_000,
        iterations: int = 12,
        seed: int = 0,
        mel: MelSpectrogram | None = None,
        vocoder: GriffinLim | None = None,
    ) -> None:
        """`bands`: quefrencies [start, stop) of each level. `dynamic_range`: dB below the loudest mel band that are coded.

        `vectors`: at most so many (drawn by `seed`) are clustered, `iterations` times.
        """
        self.mel = mel or MelSpectrogram()
        self.vocoder = vocoder or GriffinLim(self.mel)
        self.bands = [(int(start), int(stop)) for start, stop in bands]
        wrong = [b for b in self.bands if not 0 <= b[0] < b[1] <= self.mel.n_mels]
        if wrong or not self.bands:
            raise ConfigError(f"codec.bands={self.bands}: give at least one [start, stop) within 0..{self.mel.n_mels}")
        self.codewords, self.stack, self.dynamic_range = codewords, stack, dynamic_range
        self.vectors, self.iterations, self.seed = vectors, iterations, seed
        self.cosines = _cosines(self.mel.n_mels)
        self.floor = 0.0
        self.codebooks: list[Tensor] = []

    @property
    def levels(self) -> int:
        return len(self.bands)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.sample_rate / self.mel.hop / self.stack * self.levels

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Cluster the frames of recordings (samples,), with a progress bar; phones play no part. DataError when they are too few."""
        self.fit_frames([self.mel(audio) for audio in recordings])

    def fit_frames(self, frames: Sequence[Tensor]) -> None:
        """As `fit`, of log-mel frames (T, n_mels)."""
        loudest = torch.cat([f.amax(-1) for f in frames]).quantile(0.999).item() if frames else 0.0
        self.floor = loudest - self.dynamic_range / 20 * 2.302585  # dB -> nats of magnitude
        vectors = torch.cat([self._vectors(f) for f in frames]) if frames else torch.empty(0)
        if len(vectors) < self.codewords:
            raise DataError(
                f"a codec of {self.codewords} codewords needs as many {self.stack}-frame vectors, the recordings have {len(vectors)}: "
                "give more recordings or lower codec.codewords"
            )
        generator = torch.Generator().manual_seed(self.seed)
        residual = vectors[torch.randperm(len(vectors), generator=generator)[: self.vectors]]
        self.codebooks = []
        with Bar(total=self.levels * self.iterations, desc="codec", unit="pass", leave=False) as bar:
            for start, stop in self.bands:
                part = residual[..., start:stop].flatten(1)
                codebook = cluster(part, self.codewords, self.iterations, generator, bar)
                residual[..., start:stop] -= codebook[nearest(part, codebook)].unflatten(1, (self.stack, -1))
                self.codebooks.append(codebook)

    def codes(self, audio: Tensor) -> Tensor:
        """(samples,) -> (steps, levels) long, each in 0 .. codewords - 1."""
        return self.quantise(self.mel(audio))

    @torch.no_grad()
    def quantise(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) -> (steps, levels)"""
        residual = self._vectors(mel)
        codes = []
        for (start, stop), codebook in zip(self.bands, self._fitted()):
            codes.append(nearest(residual[..., start:stop].flatten(1), codebook))
            residual[..., start:stop] -= codebook[codes[-1]].unflatten(1, (self.stack, -1))
        return torch.stack(codes, dim=1)

    @torch.no_grad()
    def decode_mel(self, codes: Tensor) -> Tensor:
        """(steps, levels) -> (steps * stack, n_mels) nats; of fewer levels than there are, what the first ones say."""
        cepstra = torch.zeros(len(codes), self.stack, self.mel.n_mels)
        for level, ((start, stop), codebook) in enumerate(zip(self.bands[: codes.shape[1]], self._fitted())):
            cepstra[..., start:stop] += codebook[codes[:, level]].unflatten(1, (self.stack, -1))
        return (cepstra @ self.cosines).flatten(0, 1)

    def embedding(self) -> Tensor:
        """(tokens, stack * n_mels): the codeword of every token, each level centred and scaled to length 1 on average."""
        table = torch.zeros(self.levels, self.codewords, self.stack, self.mel.n_mels)
        for level, ((start, stop), codebook) in enumerate(zip(self.bands, self._fitted())):
            centred = codebook - codebook.mean(0)
            scale = centred.square().sum(1).mean().sqrt().clamp_min(1e-6)
            table[level, :, :, start:stop] = (centred / scale).unflatten(1, (self.stack, -1))
        return table.flatten(2).flatten(0, 1)

    def state(self) -> dict[str, Any]:
        return {"codebooks": self._fitted(), "floor": self.floor, "bands": [list(b) for b in self.bands], "stack": self.stack}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the codebooks were fitted under other settings."""
        shapes = [[self.codewords, self.stack * (stop - start)] for start, stop in self.bands]
        saved = [list(codebook.shape) for codebook in state["codebooks"]]
        if saved != shapes or state["stack"] != self.stack or state["bands"] != [list(b) for b in self.bands]:
            raise CheckpointError(
                f"the saved codec has codebooks {saved} over {state['bands']}, the config asks for {shapes} over {self.bands}: "
                "use the settings it was fitted with or fit it again"
            )
        self.codebooks, self.floor = list(state["codebooks"]), float(state["floor"])

    def _fitted(self) -> list[Tensor]:
        if not self.codebooks:
            raise DataError("the codec has no codebooks yet: fit it on recordings or restore it from a base")
        return self.codebooks

    def _vectors(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) -> (steps, stack, n_mels) cepstra of the frames, the last one repeated to fill a step."""
        steps = max(1, (len(mel) + self.stack // 2) // self.stack)
        index = torch.arange(steps * self.stack).clamp_max(len(mel) - 1)
        return (mel[index].clamp_min(self.floor) @ self.cosines.T).unflatten(0, (steps, self.stack))


def _cosines(n: int) -> Tensor:
    """(n, n) orthonormal DCT-II: row q is the cosine of quefrency q, so distances are those of the log-mel frames."""
    quefrency, band = torch.arange(n)[:, None], torch.arange(n)[None] + 0.5
    cosines = torch.cos(torch.pi / n * quefrency * band) * (2 / n) ** 0.5
    cosines[0] /= 2**0.5
    return cosines


def nearest(vectors: Tensor, codebook: Tensor, chunk: int = 8192) -> Tensor:
    """(N, D), (K, D) -> (N,) index of the closest codeword."""
    bias = codebook.square().sum(1) / 2
    return torch.cat([torch.addmm(bias, part, codebook.T, alpha=-1).argmin(1) for part in vectors.split(chunk)])


def cluster(vectors: Tensor, codewords: int, iterations: int, generator: torch.Generator, bar: Bar) -> Tensor:
    """Lloyd's algorithm: (N, D) -> (codewords, D). A codeword that lost all its vectors starts again at a random one."""

    def draw(n: int) -> Tensor:
        return vectors[torch.randperm(len(vectors), generator=generator)[:n]]

    codebook = draw(codewords).clone()
    for _ in range(iterations):
        index = nearest(vectors, codebook)
        count = index.bincount(minlength=codewords)
        sums = torch.zeros_like(codebook).index_add_(0, index, vectors)
        codebook = sums / count.clamp_min(1)[:, None]
        empty = count == 0
        codebook[empty] = draw(int(empty.sum()))
        bar.update()
    return codebook
