"""What happens to every recording and every synthesised clip before it is scored: one rate, one level, one way to trim."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ttsadapt.data import audio as files
from ttsadapt.data.pcm import resample

RATE = 16000
"""Hz, of everything that is scored"""
LEVEL = 0.1
"""root mean square that judges hear, full scale 1"""
_FRAME, _HOP = RATE * 25 // 1000, RATE * 10 // 1000


def speech(audio: Tensor, drop: float = 50.0, margin: float = 0.02) -> tuple[int, int]:
    """(samples,) at RATE -> first and end sample of what is louder than `drop` dB below the 95th percentile of 25 ms levels.

    `margin` seconds are kept on both sides. (0, 0) when there is nothing but zeros.
    """
    if len(audio) < _FRAME or not audio.any():
        return (0, len(audio) if bool(audio.any()) else 0)
    level = audio.float().unfold(0, _FRAME, _HOP).square().mean(-1)
    loud = (level > level.quantile(0.95) * 10 ** (-drop / 10)).nonzero()
    if not len(loud):
        return (0, 0)
    pad = round(margin * RATE)
    return max(int(loud[0]) * _HOP - pad, 0), min(int(loud[-1]) * _HOP + _FRAME + pad, len(audio))


def trimmed(audio: Tensor) -> Tensor:
    start, end = speech(audio)
    return audio[start:end]


def levelled(audio: Tensor) -> Tensor:
    """The same waveform at LEVEL; an emotion's loudness is no cue to the judges, nor is a backbone's output gain."""
    return audio * (LEVEL / audio.square().mean().sqrt().clamp_min(1e-8))


def at_rate(audio: Tensor, rate: int) -> Tensor:
    """(samples,) at `rate` -> (samples,) float32 at RATE."""
    audio = audio.detach().cpu().float()
    return audio if rate == RATE else torch.from_numpy(resample(audio.numpy(), rate, RATE))


@lru_cache(maxsize=64)
def recording(path: Path) -> Tensor:
    """(samples,) at RATE; several metrics ask for the same one in turn. Not to be written to."""
    return files.load(path, RATE)
