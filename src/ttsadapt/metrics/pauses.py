"""Where nothing is said: pauses inside an utterance, and the rate of what lies between them (de Jong & Wempe 2009)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, Unknown, UtteranceMetric
from ttsadapt.metrics.levels import HOP, levels
from ttsadapt.metrics.signal import at_rate, trimmed
from ttsadapt.text.syllables import syllables


def pauses(level: NDArray[np.float64], drop: float, minimum: float) -> tuple[NDArray[np.float64], float]:
    """(T,) dB -> seconds of every pause inside the speech, and of speech and pauses together.

    Speech is what is less than `drop` dB below the 95th percentile; shorter gaps than `minimum` seconds are part of it.
    """
    speech = level > np.percentile(level, 95) - drop if len(level) else np.zeros(0, bool)
    if not speech.any():
        return np.zeros(0), 0.0
    first, last = np.flatnonzero(speech)[[0, -1]]
    inside = speech[first : last + 1]
    edges = np.flatnonzero(np.diff(np.r_[True, inside, True].astype(int)))  # a pause starts, ends, the next one starts ...
    lengths = np.diff(edges.reshape(-1, 2))[:, 0] * HOP
    return lengths[lengths >= minimum - 1e-9], len(inside) * HOP


class Pausing(UtteranceMetric):
    """Base of what is measured on pauses: `drop` and `minimum` as in `pauses`."""

    better: ClassVar[str] = "near reference"

    def __init__(self, drop: float = 25.0, minimum: float = 0.2) -> None:
        super().__init__()
        self.drop, self.minimum = drop, minimum

    @property
    def model(self) -> str:
        return f"levels, {self.drop:g} dB, {self.minimum:g} s"

    def found(self, audio: Tensor, rate: int) -> tuple[NDArray[np.float64], float]:
        return pauses(levels(trimmed(at_rate(audio, rate))), self.drop, self.minimum)


class PauseShare(Pausing):
    """Pauses in % of the utterance; NaN for silence."""

    name: ClassVar[str] = "pauses"
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float]] = (0, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.1, "silence": 1e-6, "shift": 1.0}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        lengths, whole = self.found(audio, rate)
        return 100 * float(lengths.sum()) / whole if whole else SILENT


class ArticulationRate(Pausing):
    """Syllables of the text in a second of speech, pauses left out; NaN for silence and for texts without a vowel."""

    name: ClassVar[str] = "articulation"
    reads = True
    unit: ClassVar[str] = "syllables/s"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.05, "silence": 1e-6, "shift": 0.1}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        lengths, whole = self.found(audio, rate)
        count = syllables(utterance)
        if not count:
            return Unknown("no vowel in the text")
        return count / (whole - float(lengths.sum())) if whole else SILENT
