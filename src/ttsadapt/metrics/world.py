"""WORLD analysis (Morise et al. 2016): spectral envelopes as mel cepstra, and F0."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyworld
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ttsadapt.files import content_hash, digest, replacing
from ttsadapt.metrics.signal import RATE, recording, trimmed

Array = NDArray[np.float64]

REVISION = 1
"""raise it when an analysis would come out differently"""
FLOOR, CEILING = 60.0, 600.0
"""Hz, where F0 is looked for"""
PERIOD = 5.0
"""ms from frame to frame"""
ORDER = 24
ALPHA = 0.42
"""warping that comes closest to the mel scale at 16 kHz"""
_FLOOR = 1e-7
"""of the highest power of the clip: 70 dB below it nobody hears whether a pause holds zeros or rounding errors"""


class Analysis(NamedTuple):
    cepstrum: Array
    """(T, 1 + ORDER), natural logarithm of amplitude; (0, 1 + ORDER) for silence"""
    f0: Array
    """(T,) Hz, 0 where unvoiced"""


def analyse(audio: NDArray[np.float32]) -> Analysis:
    """(samples,) at RATE, silence already trimmed."""
    if len(audio) < RATE // 20 or not audio.any():
        return Analysis(np.zeros((0, 1 + ORDER)), np.zeros(0))
    samples = audio.astype(np.float64)
    coarse, time = pyworld.dio(samples, RATE, f0_floor=FLOOR, f0_ceil=CEILING, frame_period=PERIOD)
    f0 = pyworld.stonemask(samples, coarse, time, RATE)
    envelope = pyworld.cheaptrick(samples, f0, time, RATE)  # (T, fft / 2 + 1) power
    voiced = pyworld.d4c(samples, f0, time, RATE)[:, 0] < 0.5  # its "love train": dio alone finds pitch in noise
    return Analysis(mel_cepstrum(envelope + _FLOOR * envelope.max()), f0 * voiced)


def mel_cepstrum(power: Array, order: int = ORDER, alpha: float = ALPHA) -> Array:
    """(T, fft / 2 + 1) -> (T, 1 + order): the minimum-phase cepstrum of the envelope, frequency-warped by `alpha`."""
    cepstrum = np.fft.irfft(np.log(np.maximum(power, 1e-16)), axis=-1)[:, : power.shape[1]]
    cepstrum[:, 0] /= 2  # ln|H| = c0 + sum over n >= 1 of c_n cos(n w), and power is |H|^2
    cepstrum[:, -1] /= 2  # the Nyquist term is there once
    return cepstrum @ _warping(power.shape[1], order, alpha)


@lru_cache(maxsize=4)
def _warping(size: int, order: int, alpha: float) -> Array:
    """(size, 1 + order) matrix of the all-pass warping (Oppenheim & Johnson 1972): column k of powers of the warped delay.

    The warped unit delay is z~^-1 = (z^-1 - alpha) / (1 - alpha z^-1), so z^-1 = (z~^-1 + alpha) / (1 + alpha z~^-1): row n
    holds the first terms of that series to the power n.
    """
    rows = np.zeros((size, 1 + order))
    rows[0, 0] = 1.0
    for n in range(1, size):
        before, row = rows[n - 1], rows[n]
        row[0] = alpha * before[0]
        for k in range(1, 1 + order):
            row[k] = before[k - 1] + alpha * (before[k] - row[k - 1])
    return rows


@lru_cache(maxsize=4)
def of_samples(samples: bytes) -> Analysis:
    """Of trimmed float32 samples at RATE: several metrics ask for the same clip in turn."""
    return analyse(np.frombuffer(samples, np.float32))


@lru_cache(maxsize=512)
def of_recording(path: Path, cache: Path | None) -> Analysis:
    """Kept on disk below `cache`: every system is scored against the same recordings."""
    if cache is None:
        return of_samples(trimmed(recording(path)).numpy().tobytes())
    file = cache / "world" / f"{digest([content_hash(path), REVISION])}.safetensors"
    if not file.is_file():
        found = analyse(trimmed(recording(path)).numpy())
        with replacing(file) as temporary:
            save_file({"cepstrum": found.cepstrum, "f0": found.f0}, temporary)
    stored = load_file(file)
    return Analysis(stored["cepstrum"], stored["f0"])
