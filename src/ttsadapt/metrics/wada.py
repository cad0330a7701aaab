"""Signal-to-noise ratio from the amplitudes alone: WADA-SNR (Kim & Stern, Interspeech 2008)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import at_rate, trimmed

Array = NDArray[np.float64]

SHAPE = 0.4
"""of the Gamma distribution that amplitudes of clean speech have (section 2 there); noise is Gaussian"""
DECIBELS = np.arange(-20.0, 101.0)
_STEPS, _LARGEST = 2000, 4.5
_FAR = 30.0
"""deviations of the noise beyond which an amplitude is what it is without noise, to the second order"""


class WadaSNR(UtteranceMetric):
    """dB; independent of the level. What a model says holds no noise of its own: above about 40 dB differences mean little.

    Zeros are left out: a tenth of them makes 15 dB read as 100. NaN for silence.
    """

    name: ClassVar[str] = "wada_snr"
    unit: ClassVar[str] = "dB"
    bounds: ClassVar[tuple[float, float]] = (-20, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 3.0, "silence": 1e-6, "shift": 0.1}
    better: ClassVar[str] = "higher"

    @property
    def model(self) -> str:
        return "WADA-SNR, Gamma 0.4"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        return wada_snr(trimmed(at_rate(audio, rate)).numpy())


def wada_snr(samples: NDArray[np.float32]) -> float:
    """(samples,) -> dB from -20 to 100, NaN where there is nothing but zeros."""
    x = np.abs(samples.astype(np.float64))
    x = x[x > 0]
    if len(x) == 0:
        return SILENT
    return float(np.interp(np.log(x.mean()) - np.log(x).mean(), curve(), DECIBELS))


@lru_cache(maxsize=1)
def curve() -> Array:
    """ln E|x| - E ln|x| at each of DECIBELS, rising: 0.409 for noise alone to 1.645 for clean speech.

    Nothing is drawn: amplitudes s = t^2.5 of speech have the density 2.5 exp(-s) / Gamma(0.4) in t, and what noise does to each is
    folded normal.
    """
    t = (np.arange(_STEPS) + 0.5) * (_LARGEST / _STEPS)
    s = t ** (1 / SHAPE)
    weight = np.exp(-s) / np.exp(-s).sum()
    deviations = s[:, None] / np.sqrt(SHAPE * (1 + SHAPE)) * 10 ** (DECIBELS / 20)  # of the noise, whose deviation is 1
    found = np.log(weight @ _mean(deviations)) - weight @ _log_mean(deviations)
    return np.maximum.accumulate(found)  # below -10 dB it is flat


def _mean(m: Array) -> Array:
    """E|m + n|"""
    return m * (2 * ndtr(m) - 1) + np.sqrt(2 / np.pi) * np.exp(-0.5 * m**2)


def _log_mean(m: Array) -> Array:
    """E ln|m + n|"""
    near, values = _table()
    return np.where(m > _FAR, np.log(np.maximum(m, _FAR)) - 0.5 / np.maximum(m, _FAR) ** 2, np.interp(m, near, values))


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array]:
    near = np.r_[np.linspace(0, 6, 400), np.linspace(6, _FAR, 200)[1:]]
    n = ndtri((np.arange(8000) + 0.5) / 8000)
    return near, np.array([np.log(np.maximum(np.abs(m + n), 1e-12)).mean() for m in near])
