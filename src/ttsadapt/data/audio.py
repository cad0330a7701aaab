"""Recordings in and out: mono float at one rate, every unusable file refused in one line."""

from pathlib import Path

import numpy as np
import soundfile
import torch
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
        raise DataError(f"no recording {path}: prepare the data again, or correct its manifest")
    try:
        audio, own = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"cannot read {path} as audio ({str(error).splitlines()[0]}): replace or remove it") from error
    if len(audio) == 0:
        raise DataError(f"{path} holds no samples: replace or remove it")
    if not np.isfinite(audio).all():
        at = int(np.argmin(np.isfinite(audio).all(1)))
        raise DataError(f"{path} holds a value that is not finite (first at {at / own:.3f} s): repair or remove it")
    mono = audio.mean(1)
    if np.abs(mono).max() < SILENCE:
        raise DataError(f"{path} is silent (nothing above {SILENCE:g} of full scale): replace or remove it")
    return torch.from_numpy(resample(mono, own, rate))


def save(path: Path, audio: Tensor, rate: int) -> None:
    """Write (samples,) in [-1, 1] as a 16-bit WAV; values beyond are cut off."""
    with replacing(path) as temporary:
        write_wav(temporary, audio.detach().cpu().float().numpy(), rate)
