"""Comparing what was said with the utterance's own recording, frame by frame along the DTW path."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics import world
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.signal import at_rate, trimmed
from ttsadapt.metrics.world import Analysis


class Comparison(NamedTuple):
    """P pairs of frames along the path, in order of time."""

    distance: NDArray[np.float64]
    """(P,) Euclidean distance of mel cepstra without c0"""
    wanted: NDArray[np.float64]
    """(P,) F0 of the recording, Hz, 0 where unvoiced"""
    got: NDArray[np.float64]
    """(P,) F0 of the clip"""
    i: NDArray[np.int64]
    """(P,) which frame of the recording, one each `world.PERIOD`"""
    j: NDArray[np.int64]
    """(P,) which frame of the clip"""

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return (self.wanted > 0) & (self.got > 0)

    def cents(self) -> NDArray[np.float64]:
        """(V,) how far the clip is above the recording where both are voiced."""
        return 1200 * np.log2(self.got[self.voiced] / self.wanted[self.voiced])


def compare(wanted: Analysis, got: Analysis) -> Comparison:
    """Steps (1, 1), (0, 1), (1, 0) of equal weight. Empty when one of them is."""
    if not len(wanted.f0) or not len(got.f0):
        nothing, nowhere = np.zeros(0), np.zeros(0, np.int64)
        return Comparison(nothing, nothing, nothing, nowhere, nowhere)
    distance = cdist(wanted.cepstrum[:, 1:], got.cepstrum[:, 1:])
    _, path = librosa.sequence.dtw(C=distance)
    i, j = path[::-1].T
    return Comparison(distance[i, j], wanted.f0[i], got.f0[j], i, j)


class ParallelMetric(UtteranceMetric):
    """Scores against `utterance.audio`; the analyses and the path are shared by every metric that asks for the same clip."""

    compares = True

    def __init__(self) -> None:
        super().__init__()
        self.cache: Path | None = None

    @property
    def model(self) -> str:
        return "pyworld dio+stonemask+d4c+cheaptrick, dtw"

    @property
    def revision(self) -> str:
        return f"{pyworld.__version__}-{world.REVISION}"

    def open(self, corpus: Path, cache: Path) -> None:
        self.cache = Path(cache)

    def comparison(self, audio: Tensor, rate: int, utterance: Utterance) -> Comparison:
        return _compared(trimmed(at_rate(audio, rate)).numpy().tobytes(), utterance.audio, self.cache)


@lru_cache(maxsize=4)
def _compared(samples: bytes, path: Path, cache: Path | None) -> Comparison:
    return compare(world.of_recording(path, cache), world.of_samples(samples))
