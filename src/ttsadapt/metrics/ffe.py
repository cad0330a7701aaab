"""F0 frame error (Chu & Alwan 2009) with YIN (de Cheveigné & Kawahara 2002), as HyperTTS's tables report it."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import librosa
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate, recording

Array = NDArray[np.float64]

_WINDOW, _STEP = 512, 256
"""samples"""
_LOW, _HIGH = 100, 500
"""Hz"""
_THRESHOLD = 0.1
_GROSS = 0.2
"""share of the recording's F0"""


class F0FrameError(UtteranceMetric):
    """Frames that are voiced in one clip only, or more than 20 % off, in % of all. Nothing is aligned: the shorter clip goes on
    in silence, so a clip of another pace scores badly however good its pitch is. `f0` compares along the path."""

    name: ClassVar[str] = "ffe"
    compares = True
    usual = False
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float]] = (0, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.1}
    better: ClassVar[str] = "lower"

    @property
    def model(self) -> str:
        return "yin 100-500 Hz, unaligned"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        wanted, got = _trimmed_recording(utterance.audio), _trimmed(at_rate(audio, rate))
        size = max(len(wanted), len(got))
        if size <= _WINDOW:
            return SILENT
        return 100 * frame_error(*(yin(np.pad(clip, (0, size - len(clip)))) for clip in (wanted, got)))


def frame_error(wanted: Array, got: Array) -> float:
    """(T,), (T,) Hz, 0 where unvoiced -> share of frames."""
    voiced = (wanted > 0) & (got > 0)
    gross = voiced & (np.abs(got / (wanted + 1e-8) - 1) > _GROSS)
    return float((gross | ((wanted > 0) != (got > 0))).mean())


def yin(audio: NDArray[np.float32]) -> Array:
    """(samples,) at RATE -> (T,) Hz, 0 where the normalised difference stays above the threshold."""
    shortest, longest = RATE // _HIGH, RATE // _LOW
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), _WINDOW)[: len(audio) - _WINDOW : _STEP]
    normalised = _difference(frames, longest)
    found = np.zeros(len(frames))
    for t, curve in enumerate(normalised):
        below = np.flatnonzero(curve[shortest:] < _THRESHOLD)
        if len(below):
            lag = shortest + below[0]
            while lag + 1 < longest and curve[lag + 1] < curve[lag]:  # down to the bottom of this dip
                lag += 1
            found[t] = RATE / lag
    return found


def _difference(frames: Array, longest: int) -> Array:
    """(T, _WINDOW) -> (T, longest): cumulative mean normalised difference at every lag, within the window (equations 6 and 8)."""
    energy = np.pad(np.cumsum(frames**2, 1), ((0, 0), (1, 0)))
    spectrum = np.fft.rfft(frames, 2 * _WINDOW)
    likeness = np.fft.irfft(np.abs(spectrum) ** 2)[:, :longest]
    lags = np.arange(longest)
    difference = energy[:, _WINDOW - lags] + energy[:, -1:] - energy[:, lags] - 2 * likeness
    total = np.cumsum(difference[:, 1:], 1)
    shares = np.divide(difference[:, 1:] * lags[1:], total, out=np.ones_like(total), where=total > 0)
    return np.concatenate([np.ones((len(frames), 1)), shares], 1)


def _trimmed(audio: Tensor) -> NDArray[np.float32]:
    """Without what is 23 dB below the loudest frame at both ends."""
    clip, _ = librosa.effects.trim(audio.numpy(), top_db=23, frame_length=1024, hop_length=256)
    return clip


@lru_cache(maxsize=64)
def _trimmed_recording(path: Path) -> NDArray[np.float32]:
    return _trimmed(recording(path))
