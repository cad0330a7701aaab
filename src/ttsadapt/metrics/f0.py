"""How far the melody is from the recording's, on frames that are voiced in both, after alignment."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.parallel import ParallelMetric

_FEWEST = 10
"""pairs of voiced frames below which nothing is said"""
UNVOICED = Unknown(f"fewer than {_FEWEST} frames are voiced in both, or their pitch does not move")


class F0Error(ParallelMetric):
    """Root mean square difference of F0 in cents; it holds both a voice that is too high and a contour that is wrong."""

    name: ClassVar[str] = "f0"
    unit: ClassVar[str] = "cent"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 10.0, "silence": 1e-6, "shift": 25.0}
    better: ClassVar[str] = "lower"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        cents = self.comparison(audio, rate, utterance).cents()
        return float(np.sqrt(np.square(cents).mean())) if len(cents) >= _FEWEST else UNVOICED


class F0Correlation(ParallelMetric):
    """Pearson correlation of log F0, times 100: the shape of the contour, whatever the height of the voice."""

    name: ClassVar[str] = "f0_correlation"
    unit: ClassVar[str] = "r x 100"
    bounds: ClassVar[tuple[float, float]] = (-100, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 2.0, "silence": 1e-6, "shift": 8.0}
    better: ClassVar[str] = "higher"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        pairs = self.comparison(audio, rate, utterance)
        wanted, got = (np.log(f0[pairs.voiced]) for f0 in (pairs.wanted, pairs.got))
        if len(got) < _FEWEST or min(wanted.std(), got.std()) < 1e-6:
            return UNVOICED
        return 100 * float(np.corrcoef(wanted, got)[0, 1])
