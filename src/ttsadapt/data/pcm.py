"""Samples in numpy: what processes that render speech need, without torch."""

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Audio = NDArray[np.float32]


def resample(audio: Audio, rate: int, wanted: int) -> Audio:
    """(samples,) -> (samples * wanted / rate,)."""
    return audio if rate == wanted else soxr.resample(audio, rate, wanted, "HQ")


def sixteen_bits(audio: Audio) -> NDArray[np.int16]:
    """(samples,) in [-1, 1] -> (samples,): what was read from 16 bits comes out as it was, what is beyond is clipped."""
    return np.clip(np.round(audio * 32768), -32768, 32767).astype("<i2")


def write_wav(path: Path, audio: Audio, rate: int) -> NDArray[np.int16]:
    """(samples,) in [-1, 1] -> 16-bit WAV and its samples. In place: for files of a folder that itself appears whole or not at all."""
    samples = sixteen_bits(audio)
    with open(path, "wb") as file:  # our own handle: a full disk is then an OSError with its number
        soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return samples
