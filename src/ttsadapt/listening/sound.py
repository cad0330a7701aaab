"""Clips made comparable: one rate, one loudness, one lossless format."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import soundfile

from ttsadapt.bars import Bar
from ttsadapt.data.bringing.loudness import loudness
from ttsadapt.data.pcm import resample, sixteen_bits
from ttsadapt.errors import DataError
from ttsadapt.listening.base import Clip

PEAK = 10 ** (-1 / 20)
"""no sample of any clip goes beyond, -1 dBFS"""
FORMATS = {
    "flac": ("FLAC", "PCM_16", "audio/flac", 1.0),
    "opus": ("OGG", "OPUS", "audio/ogg", 0.77),
    "mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg", 0.3),
}
"""{name: libsndfile's format and subtype, MIME type, how hard libsndfile compresses (0 to 1)}"""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


_SILENT = -100.0
"""LUFS; below the last bit of 16"""


class Sounds(NamedTuple):
    """Every clip as it is played."""

    data: list[bytes]
    """encoded; Ogg numbers every stream at random, so it differs from one time to the next"""
    prints: list[str]
    """a hash of each clip's samples, with their format and rate: does not change while the sound does not"""
    seconds: list[float]
    rate: int
    loudness: float
    """LUFS, of all"""


def prepared(clips: Sequence[Clip], wanted: float, rate: int | None, form: str) -> Sounds:
    """Read, degraded where asked, at the highest rate among them (or `rate`), all at one BS.1770 loudness.

    That is `wanted` LUFS, or as much below as it takes for the loudest peak to stay under -1 dBFS: all clips are turned down alike, none
    is limited. A silent clip stays silent.
    """
    with ThreadPoolExecutor(2) as pool:
        raw = list(Bar(pool.map(_read, clips), "clips of the listening test", len(clips), unit="clip", leave=False))
    common = rate or max(own for _, own in raw)
    if form == "opus":
        common = min((r for r in OPUS_RATES if r >= common), default=OPUS_RATES[-1])
    audio = [resample(samples, own, common) for samples, own in raw]
    audio = [clip.through(samples, common) if clip.through else samples for clip, samples in zip(clips, audio)]
    gains = [gain(samples, common, wanted) for samples in audio]
    peak = max((g * np.abs(samples).max() for g, samples in zip(gains, audio)), default=0.0)
    down = min(1.0, PEAK / max(peak, 1e-9))
    level = wanted + 20 * float(np.log10(down))
    ready = [sixteen_bits(dithered(samples * np.float32(g * down), clip.copy)) for clip, samples, g in zip(clips, audio, gains)]
    data = [encoded(samples, common, form) for samples in ready]
    prints = [blake2b(samples.tobytes() + f"{form} {common}".encode()).hexdigest() for samples in ready]
    return Sounds(data, prints, [len(samples) / common for samples in audio], common, level)


def _read(clip: Clip) -> tuple[np.ndarray, int]:
    """((samples,) float32 mono, rate)."""
    try:
        samples, rate = soundfile.read(clip.path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{clip.path} cannot be read as audio ({str(error).splitlines()[0]}): synthesise the run again") from error
    if len(samples) == 0:
        raise DataError(f"{clip.path} holds no sample: synthesise the run again")
    return np.nan_to_num(samples.mean(1)), rate


def gain(samples: np.ndarray, rate: int, wanted: float) -> float:
    """Factor that brings (samples,) to `wanted` LUFS (ITU-R BS.1770-4, gated); 1 for silence."""
    measured = loudness(samples, rate)
    return 10 ** ((wanted - measured) / 20) if measured > _SILENT else 1.0


def dithered(samples: np.ndarray, copy: int) -> np.ndarray:
    """Triangular noise of one step of 16 bits, another for every copy; none for the original."""
    if copy == 0:
        return samples
    uniform = np.random.default_rng(copy).random((2, len(samples)), dtype=np.float32)
    return samples + (uniform[0] - uniform[1]) / 32768


def encoded(samples: np.ndarray, rate: int, form: str) -> bytes:
    """`samples`: (samples,) int16."""
    kind, subtype, _, squeeze = FORMATS[form]
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype, compression_level=squeeze)
    return stream.getvalue()


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
