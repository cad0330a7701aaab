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
    """(samples,) in [-1, 1] -> (samples,); what is beyond is clipped."""
    return np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")


def write_wav(path: Path, audio: Audio, rate: int) -> None:
    """(samples,) in [-1, 1] -> 16-bit WAV, in place: for files of a folder that itself appears whole or not at all."""
    with open(path, "wb") as file:  # our own handle: a full disk is then an OSError with its number
        soundfile.write(file, sixteen_bits(audio), rate, format="WAV", subtype="PCM_16")
