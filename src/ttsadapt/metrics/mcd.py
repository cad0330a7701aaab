"""How far the timbre is from the recording's: mel-cepstral distortion (Kubichek 1993) along the DTW path."""

from collections.abc import Mapping
from math import log, sqrt
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT
from ttsadapt.metrics.parallel import ParallelMetric

_DECIBEL = 10 * sqrt(2) / log(10)


class MelCepstralDistortion(ParallelMetric):
    """10 sqrt(2) / ln 10 times the mean distance over the path: WORLD envelope at 16 kHz, order 24, alpha 0.42, no c0.

    Silence at both ends is trimmed first. NaN for silence.
    """

    name: ClassVar[str] = "mcd"
    unit: ClassVar[str] = "dB"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 1.0, "silence": 1e-6, "shift": 1.0}
    better: ClassVar[str] = "lower"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        distance = self.comparison(audio, rate, utterance).distance
        return float(_DECIBEL * distance.mean()) if len(distance) else SILENT
