"""One recording on its way in, in a process that knows no torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ttsadapt.data import espeak
from ttsadapt.data.bringing.loudness import Samples, loudness
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.pcm import resample, write_wav
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import UserError
from ttsadapt.text.phones import phonemize

SILENCE = 1e-4
"""largest magnitude of what counts as silent"""
_FULL = 0.999
"""magnitude of a sample that counts as clipped"""
_FRAME = 0.02
"""seconds over which the level is taken for trimming"""
_TRIMMED = 10
"""times the longest recording wanted: what is longer is not looked at for the silence that trimming would take off"""
_STEP = 1 / 32768
"""of 16-bit audio: a mean below it is none"""


@dataclass(frozen=True)
class Brought:
    """What is known of a recording once it is in."""

    seconds: float
    hash: str
    """of its samples"""
    start: float
    """seconds that were cut off its beginning"""


class Refused(Exception):
    """`args`: kind, told."""


def bring(one: Found, path: Path, how: Bringing) -> Brought | Rejected:
    """Write it to `path`. It may be there in part, from a process that was killed."""
    try:
        _speakable(one)
        samples, rate = read(one, how)
        return _written(treated(samples, rate, one, how), path, how.sample_rate)
    except Refused as refused:
        kind, told = refused.args
        return Rejected(one.where, kind, told)


def _speakable(one: Found) -> None:
    """Beyond letters, only where espeak-ng is installed (a backbone may not need it)."""
    text = one.utterance.text
    if not text.strip():
        raise Refused("no text", "its transcript is empty: write down what is said, or remove the recording")
    if not any(c.isalnum() for c in text):  # espeak-ng would read a lone "!!!" as "exclamation"
        raise Refused("unspeakable text", f"the text {text!r} has nothing to pronounce: correct it, or remove the recording")
    try:
        espeak.version()
    except UserError:
        return
    try:
        phonemize(text, one.utterance.language)
    except UserError as error:
        raise Refused("unspeakable text", str(error)) from error


def read(one: Found, how: Bringing) -> tuple[NDArray[np.float32], int]:
    """(samples, channels) of its part of the file, and their rate. Refused when it cannot be read or holds nothing of use.

    What trimming cannot make short enough is refused by its header: two hours are not decoded to be thrown away.
    """
    path = one.utterance.audio
    if not path.is_file():
        raise Refused("missing file", f"no recording {path}: put it back, or correct its path")
    try:
        with soundfile.SoundFile(path) as file:
            rate, start = file.samplerate, round(one.start * file.samplerate)
            if start and start >= file.frames:
                raise Refused("empty", f"{path} lasts {file.frames / rate:.3f} s but the recording starts at {one.start:.3f} s: correct it")
            count = (file.frames if one.end is None else min(round(one.end * rate), file.frames)) - start
            if how.longest is not None and count / rate > how.longest * (1 if how.trim is None else _TRIMMED) + _FRAME:
                raise _too_long(path, count / rate, how.longest)
            file.seek(start)
            audio = file.read(-1 if one.end is None else max(count, 0), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        told = " ".join(str(error).split())
        raise Refused("unreadable", f"cannot read {path} as audio ({told}): replace it as wav or flac, or remove it") from error
    if len(audio) == 0:
        raise Refused("empty", f"{path} holds no samples: replace or remove it")
    if one.channel is not None:
        if not 0 <= one.channel < audio.shape[1]:
            raise Refused("unreadable", f"{path} has {audio.shape[1]} channels, not one numbered {one.channel}: correct it")
        audio = audio[:, one.channel : one.channel + 1]
    return audio, rate


def treated(audio: NDArray[np.float32], rate: int, one: Found, how: Bringing) -> tuple[Samples, float]:
    """(samples, channels) at `rate` -> (samples,) at the wanted rate, and the seconds that were cut off its beginning."""
    name = one.utterance.audio
    finite = np.isfinite(audio).all(1)
    if not finite.all():
        raise Refused("not finite", f"{name} holds a value that is not finite (first at {finite.argmin() / rate:.3f} s): repair it")
    if (share := float((np.abs(audio).max(1) >= _FULL).mean())) > how.clipped:
        raise Refused("clipped", f"{name}: {share:.1%} of it is at full scale: record it softer, or raise data.bring.clipped")
    samples = audio.mean(1)
    mean = samples.mean(dtype=np.float64)
    samples = samples - np.float32(mean) if abs(mean) > _STEP else samples
    if np.abs(samples).max() < SILENCE:
        raise Refused("silent", f"{name} is silent (nothing above {SILENCE:g} of full scale): replace or remove it")
    samples = resample(samples, rate, how.sample_rate)
    samples = samples if how.denoise is None else how.denoise(samples, how.sample_rate)
    first, end = (0, len(samples)) if how.trim is None else ends(samples, how.sample_rate, how.trim, how.margin)
    return _levelled(_long_enough(samples[first:end], name, how), how), first / how.sample_rate


def _long_enough(samples: Samples, name: Path, how: Bringing) -> Samples:
    seconds = len(samples) / how.sample_rate
    if seconds < how.shortest:
        raise Refused("too short", f"{name}: {seconds:.2f} s of it are left: remove it, or lower data.bring.shortest={how.shortest:g}")
    if how.longest is not None and seconds > how.longest:
        raise _too_long(name, seconds, how.longest)
    return samples


def _too_long(name: Path, seconds: float, longest: float) -> Refused:
    return Refused("too long", f"{name} lasts {seconds:.1f} s: cut it with data/bring/segments, or raise data.bring.longest={longest:g}")


def ends(samples: Samples, rate: int, below: float, margin: float) -> tuple[int, int]:
    """Where the sound begins and ends: the first and last 20 ms within `below` dB of the loudest, and `margin` seconds around."""
    frame = max(round(_FRAME * rate), 1)
    power = np.add.reduceat(np.square(samples), np.arange(0, len(samples), frame))
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below / 10))
    kept = round(margin * rate)
    return max(int(loud[0]) * frame - kept, 0), min((int(loud[-1]) + 1) * frame + kept, len(samples))


def _levelled(samples: Samples, how: Bringing) -> Samples:
    if how.loudness is None:
        return samples
    gain = 10 ** ((how.loudness - loudness(samples, how.sample_rate)) / 20)
    largest = float(np.abs(samples).max())
    if not largest or not np.isfinite(gain):
        return samples
    return samples * np.float32(min(gain, 10 ** (how.peak / 20) / largest))


def _written(made: tuple[Samples, float], path: Path, rate: int) -> Brought:
    """16 bits; what was read from 16 bits and not changed is written as it was."""
    samples, start = made
    pcm = write_wav(path, samples, rate)
    state = hashlib.blake2b(f"{rate} ".encode() + pcm.astype("<i2").tobytes(), digest_size=16)
    return Brought(len(pcm) / rate, state.hexdigest(), start)


def moved(phones: Sequence[Phone], brought: Brought) -> tuple[Phone, ...]:
    """Phones of the whole recording -> of what was kept of it."""
    inside = [Phone(p.symbol, max(p.start - brought.start, 0.0), min(p.end - brought.start, brought.seconds)) for p in phones]
    inside = [p for p in inside if p.end > p.start]
    return (*inside[:-1], inside[-1]._replace(end=brought.seconds)) if inside else ()
