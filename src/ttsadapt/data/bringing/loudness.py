"""Integrated loudness by ITU-R BS.1770-4, in numpy: processes that bring recordings in do without torch."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

Samples = NDArray[np.float32]
BLOCK, STEP = 0.4, 0.1
"""seconds (annex 1, section 5.1: gating blocks of 400 ms that overlap by 75 %)"""
_ABSOLUTE, _RELATIVE = -70.0, -10.0


def loudness(samples: Samples, rate: int) -> float:
    """(samples,) of one channel -> LUFS; -inf for silence. What is shorter than a block, or below every gate, is taken whole."""
    power = np.square(sosfilt(_weighting(rate), samples))
    step, per_block = round(STEP * rate), round(BLOCK / STEP)
    steps = len(power) // step
    if steps < per_block:
        return _decibels(float(power.mean()))
    sums = np.add.reduceat(power[: steps * step], np.arange(0, steps * step, step))
    blocks = np.convolve(sums, np.ones(per_block), "valid") / (per_block * step)
    loud = blocks[blocks > _power(_ABSOLUTE)]
    if not len(loud):
        return _decibels(float(power.mean()))
    loud = loud[loud > loud.mean() * 10 ** (_RELATIVE / 10)]
    return _decibels(float(loud.mean()))


def _decibels(power: float) -> float:
    return -0.691 + 10 * math.log10(power) if power > 0 else -math.inf


def _power(decibels: float) -> float:
    return 10 ** ((decibels + 0.691) / 10)


@lru_cache
def _weighting(rate: int) -> NDArray[np.float64]:
    """(2, 6) second-order sections: the head's shelf and the high-pass (tables 1 and 2), their analogue prototypes at any rate."""
    k = math.tan(math.pi * 1681.974450955533 / rate)
    gain = 10 ** (3.999843853973347 / 20)
    band, q = gain**0.4996667741545416, 0.7071752369554196
    norm = 1 + k / q + k * k
    shelf = [(gain + band * k / q + k * k) / norm, 2 * (k * k - gain) / norm, (gain - band * k / q + k * k) / norm]
    shelf += [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    k, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    return np.array([shelf, [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]])
