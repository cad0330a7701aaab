"""Is it the right voice, asked of an encoder that never saw the corpus: what all such metrics have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsadapt.data import manifest
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.base import Unknown, UtteranceMetric
from ttsadapt.metrics.judged import cosine
from ttsadapt.metrics.pretrained import fingerprint, named
from ttsadapt.metrics.signal import RATE, at_rate, levelled, recording, trimmed
from ttsadapt.metrics.subset import subset


class VoiceSimilarity(UtteranceMetric):
    """Cosine x 100 of speaker vectors of trimmed clips of one level. Values of one encoder compare with no other's.

    reference "voice": to the mean of the voice's recordings in the valid splits (of the train splits where it has no others), so that
    copying one recording gains nothing. "recording": to the utterance's own recording.
    """

    unit: ClassVar[str] = "cos x 100"
    steady: ClassVar[Mapping[str, float]] = {"gain": 3.0, "silence": 1e-4, "shift": 3.0}
    better: ClassVar[str] = "higher"
    bounds: ClassVar[tuple[float, float]] = (-100, 100)

    def __init__(self, reference: Literal["voice", "recording"], recordings: int = 16) -> None:
        """`recordings`: of a voice that its mean is taken over."""
        super().__init__()
        if reference not in ("voice", "recording"):
            raise ConfigError(f"metric.{self.name}.reference={reference}: choose voice or recording")
        self.reference, self.recordings, self.corpus = reference, recordings, Path()
        self.compares, self.looks = reference == "recording", reference == "voice"
        self._voices: dict[str, Tensor | None] = {}

    @abstractmethod
    def embed(self, audio: Tensor) -> Tensor:
        """(samples,) at RATE, trimmed and levelled, at least a tenth of a second -> (size,), of any length."""

    def open(self, corpus: Path, cache: Path) -> None:
        if Path(corpus) != self.corpus:
            self.corpus, self._voices = Path(corpus), {}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        wanted = self.vector(recording(utterance.audio)) if self.compares else self.voice(utterance.speaker)
        if wanted is None and not self.compares:
            return Unknown(f"{utterance.speaker} has no recordings in the data: give data=, or metric.{self.name}.reference=recording")
        return cosine(self.vector(at_rate(audio, rate)), wanted)

    def vector(self, audio: Tensor) -> Tensor | None:
        """Of length 1; None where there is no speech."""
        speech = trimmed(audio)
        if len(speech) < RATE // 10 or not speech.any():
            return None
        with torch.inference_mode():
            return F.normalize(self.embed(levelled(speech)).float(), dim=0)

    def voice(self, speaker: str) -> Tensor | None:
        """(size,) of length 1; None for a voice that is in no train or valid split."""
        if speaker not in self._voices:
            found = [self.vector(recording(path)) for path in recordings_of(self.corpus, speaker, self.recordings)]
            known = [v for v in found if v is not None]
            self._voices[speaker] = F.normalize(torch.stack(known).mean(0), dim=0) if known else None
        return self._voices[speaker]


class ReleasedVoices(VoiceSimilarity):
    """By an encoder whose weights lie in a folder, or in the hub's cache."""

    def __init__(self, path: str, reference: Literal["voice", "recording"] = "voice", recordings: int = 16) -> None:
        super().__init__(reference, recordings)
        self.path = path

    @property
    def model(self) -> str:
        return f"{named(self.path)}, to the {self.reference}"

    @property
    def revision(self) -> str:
        return fingerprint(self.path)


@lru_cache(maxsize=256)
def recordings_of(corpus: Path, speaker: str, count: int) -> list[Path]:
    """Of a voice in the valid splits, else in the train splits."""
    for split in (".valid", ".train"):
        names = [n for n in manifest.names(corpus) if n.endswith(split)] if corpus.is_dir() else []
        own = [u.audio for n in names for u in manifest.read(corpus, n) if u.speaker == speaker]
        if own:
            return subset(own, count)
    return []
