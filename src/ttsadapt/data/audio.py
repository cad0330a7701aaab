"""Recordings in and out: mono float at one rate, every unusable file refused in one line."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.pcm import resample, write_wav
from ttsadapt.errors import DataError
from ttsadapt.files import replacing

SILENCE = 1e-4
"""largest magnitude of what counts as silent"""


def load(path: Path, rate: int) -> Tensor:
    """(samples,) float32 at `rate`: channels averaged, resampled once.

    Raises DataError when the file is missing, unreadable, empty, silent, or holds a value that is not finite.
    """
    if not path.is_file():
        raise DataError(f"no recording {path}: put it back, or prepare the data again")
    try:
        audio, own = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"cannot read {path} as audio ({_line(error)}): replace or remove it") from error
    return mono(audio, own, rate, str(path))


def mono(audio: NDArray[np.float32], own: int, rate: int, where: str) -> Tensor:
    """(samples, channels) at `own` Hz -> (samples,) at `rate`; DataError, naming `where`, when it cannot be used."""
    if len(audio) == 0:
        raise DataError(f"{where} holds no samples: replace or remove it")
    finite = np.isfinite(audio).all(1)
    if not finite.all():
        raise DataError(f"{where} holds a value that is not finite (first at {finite.argmin() / own:.3f} s): repair or remove it")
    one = audio.mean(1)
    if np.abs(one).max() < SILENCE:
        raise DataError(f"{where} is silent (nothing above {SILENCE:g} of full scale): replace or remove it")
    return torch.from_numpy(resample(one, own, rate))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def save(path: Path, audio: Tensor, rate: int) -> None:
    """Write (samples,) in [-1, 1] as a 16-bit WAV; values beyond are cut off."""
    with replacing(path) as temporary:
        write_wav(temporary, audio.detach().cpu().float().numpy(), rate)
