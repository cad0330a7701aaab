"""Mel-cepstral distortion as HyperTTS's `object_metrics.py` computes it: to compare with its tables, and with nothing else.

No distance along a path: the mean of the whole matrix of accumulated costs, over the recording's frames. Other settings than
`metrics.mcd` throughout: nothing is trimmed, alpha is that of 22 kHz, and WORLD's power is taken for an amplitude, which
doubles every cepstral coefficient.
"""

from functools import lru_cache
from math import log, sqrt
from pathlib import Path
from typing import ClassVar

import librosa
import numpy as np
import pyworld
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate, recording
from ttsadapt.metrics.world import mel_cepstrum

Array = NDArray[np.float64]

_ORDER, _ALPHA, _FFT, _PERIOD = 25, 0.65, 512, 5.0
_DECIBEL = 10 * sqrt(2) / log(10)


class HyperTTSDistortion(UtteranceMetric):
    """The mean over a set is the sum of its clips' mean costs over the sum of its recordings' frames."""

    name: ClassVar[str] = "mcd_hypertts"
    compares = True
    usual = False
    unit: ClassVar[str] = "dB, accumulated"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    better: ClassVar[str] = "lower"

    @property
    def model(self) -> str:
        return "pyworld dio+stonemask+cheaptrick, dtw, mean accumulated cost"

    @property
    def revision(self) -> str:
        return pyworld.__version__

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        wanted = _of_recording(utterance.audio)
        return accumulated(wanted, cepstrum(at_rate(audio, rate))) / len(wanted)

    def weight(self, utterance: Utterance) -> float:
        return float(len(_of_recording(utterance.audio)))


def accumulated(wanted: Array, got: Array) -> float:
    """(T, C), (S, C) -> the mean over all cells of the cost to reach them."""
    cost = librosa.sequence.dtw(wanted.T, got.T, metric="euclidean", backtrack=False)
    return float(_DECIBEL * cost.mean())


def cepstrum(audio: Tensor) -> Array:
    """(samples,) at RATE -> (T, _ORDER) without c0."""
    samples = audio.double().numpy()
    coarse, time = pyworld.dio(samples, RATE, frame_period=_PERIOD)
    f0 = pyworld.stonemask(samples, coarse, time, RATE)
    power = pyworld.cheaptrick(samples, f0, time, RATE, fft_size=_FFT)
    return mel_cepstrum(power**2 + 1e-8, _ORDER, _ALPHA)[:, 1:]


@lru_cache(maxsize=64)
def _of_recording(path: Path) -> Array:
    return cepstrum(recording(path))
