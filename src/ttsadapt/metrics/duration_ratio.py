"""Is it as long as it should be: its length over the length that the text ought to take."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from ttsadapt.data import manifest
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.base import SILENT, Unknown, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate, recording, speech
from ttsadapt.metrics.subset import subset
from ttsadapt.text.syllables import syllables


class DurationRatio(UtteranceMetric):
    """Length / expected length, silence at both ends trimmed; 1 is right.

    expected "recording": the utterance's own. "rate": the text's syllables at the speaker's own rate, seconds a syllable over the
    speaker's recordings in the train and valid splits, which needs no recording of the text.
    """

    name: ClassVar[str] = "duration_ratio"
    unit: ClassVar[str] = "ratio"
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.01, "silence": 1e-6, "shift": 0.02}
    better: ClassVar[str] = "near reference"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))

    def __init__(self, expected: Literal["recording", "rate"] = "recording", recordings: int = 24) -> None:
        """`recordings`: of a speaker that are listened to for its rate."""
        super().__init__()
        if expected not in ("recording", "rate"):
            raise ConfigError(f"metric.duration_ratio.expected={expected}: choose recording or rate")
        self.expected, self.recordings, self.corpus = expected, recordings, Path()
        self.compares = expected == "recording"
        self.reads = self.looks = expected == "rate"

    @property
    def model(self) -> str:
        return "trimmed duration" if self.compares else f"trimmed duration, {self.recordings} recordings' rate"

    def open(self, corpus: Path, cache: Path) -> None:
        self.corpus = Path(corpus)

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        wanted = _said(recording(utterance.audio)) if self.compares else self._at_rate(utterance)
        got = _said(at_rate(audio, rate))
        return got / wanted if got and wanted > 0 else wanted if wanted != wanted else SILENT

    def _at_rate(self, utterance: Utterance) -> float:
        pace = seconds_a_syllable(self.corpus, utterance.speaker, self.recordings)
        if pace is None:
            return Unknown(f"{utterance.speaker} has no recordings with a text in the data to take a rate from: give data=")
        count = syllables(utterance)
        return pace * count if count else Unknown("no vowel in the text")


def _said(audio: Tensor) -> float:
    """Seconds."""
    start, end = speech(audio)
    return (end - start) / RATE


@lru_cache(maxsize=256)
def seconds_a_syllable(corpus: Path, speaker: str, recordings: int) -> float | None:
    """Of a speaker's recordings in the train and valid splits; None without any."""
    names = [n for n in manifest.names(corpus) if n.endswith((".train", ".valid"))]
    own = [u for n in names for u in manifest.read(corpus, n) if u.speaker == speaker]
    heard = [(_said(recording(u.audio)), syllables(u)) for u in subset(own, recordings)]
    seconds, count = sum(s for s, n in heard if n), sum(n for _, n in heard)
    return seconds / count if count else None
