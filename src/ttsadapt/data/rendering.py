"""Lines of a script, spoken by espeak-ng into audio files, on several processes with the same result as on one."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ttsadapt.bars import Bar
from ttsadapt.data.conditions import Clean, Condition
from ttsadapt.data.espeak import PAUSE, RATE, Speech, engine
from ttsadapt.data.pcm import resample, write_wav
from ttsadapt.data.styles import Style, in_voice, voice_quality
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.processes import workers

_CHUNK = 16
_WORTH_A_PROCESS = 60
"""lines; starting a process costs about as much as rendering these"""
_END = 0.08
"""seconds that are kept of the pause at the end"""


@dataclass(frozen=True)
class Line:
    """What is to be said, by whom, how."""

    id: str
    part: str
    """"<set>.<split>" """
    text: str
    voice: str
    """a variant of espeak-ng"""
    emotion: str
    style: Style
    language: str
    condition: Condition = field(default_factory=Clean)
    """it was recorded in"""
    context: tuple[str, ...] = ()
    """ids of the turns before it, oldest first; they come earlier in the script"""


def render(lines: Sequence[Line], folder: Path, rate: int, seed: int, processes: int) -> Iterator[Utterance]:
    """Write `wavs/<part>/<id>.wav` at `rate` below `folder`, in the order of `lines`, with a progress bar."""
    for part in sorted({line.part for line in lines}):
        (folder / "wavs" / part).mkdir(parents=True, exist_ok=True)
    say = partial(_render, folder=folder, rate=rate, seed=seed)
    processes = min(processes, 1 + len(lines) // _WORTH_A_PROCESS)
    bar = partial(Bar, total=len(lines), desc="speaking the embedded corpus", unit="utt", leave=False)
    if processes < 2:
        yield from bar(map(say, lines))
        return
    with workers(processes) as pool:  # they import nothing heavy
        yield from bar(pool.map(say, lines, chunksize=_CHUNK))


def _render(line: Line, folder: Path, rate: int, seed: int) -> Utterance:
    own = int.from_bytes(hashlib.blake2b(f"{seed} {line.id}".encode(), digest_size=8).digest(), "big")
    style = in_voice(line.style, line.voice)
    speech = _shorten(engine().say(line.text, f"{line.language}+{line.voice}", style.prosody, own))
    audio = voice_quality(speech.pcm, RATE, style, np.random.default_rng(own))
    audio = line.condition(resample(audio, RATE, rate), rate, np.random.default_rng([own, 1]))
    path = folder / "wavs" / line.part / f"{line.id}.wav"
    write_wav(path, audio, rate)
    seconds = len(audio) / rate
    phones = tuple(Phone(s, round(a / RATE, 8), round(min(b / RATE, seconds), 8)) for s, a, b in speech.segments)
    phones = (*phones[:-1], phones[-1]._replace(end=seconds))  # resampling rounds the length
    return Utterance(line.id, path, line.text, line.voice, line.emotion, line.language, seconds, phones)


def _shorten(speech: Speech) -> Speech:
    """Without most of the pause that espeak-ng leaves at the end of a clause."""
    symbol, start, end = speech.segments[-1]
    if symbol != PAUSE:
        return speech
    end = min(end, start + int(_END * RATE))
    return Speech(speech.pcm[:end], (*speech.segments[:-1], (PAUSE, start, end)))
