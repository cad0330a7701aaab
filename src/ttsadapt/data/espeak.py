"""The espeak-ng engine of the optional `espeakng-loader` wheel, through ctypes: text in, samples and phone segments out.

One engine per process, not thread-safe. espeak-ng keeps static state and seeds its noise source from the clock, so every
utterance starts from a freshly loaded library with both of its generators seeded: the output is then a pure function of the
arguments, in any order and in any process. Linux and macOS.
"""

import _ctypes
import ctypes
import difflib
import importlib.metadata
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from multiprocessing import util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttsadapt.errors import UserError

RATE = 22050
"""Hz, of every espeak-ng voice"""
PAUSE = "_"

_SYNCHRONOUS, _PHONE_EVENTS, _IPA, _DONT_EXIT = 2, 0x0001, 0x0002, 0x8000
_UTF8 = 1
_SPEED, _VOLUME, _PITCH, _RANGE, _GAP = 1, 2, 3, 4, 7
_LAST, _PHONE = 0, 7
_HEADROOM = 60
"""percent of the default volume: at 100 the loudest voices are cut off at full scale"""
_PATH_LIMIT = 120
"""bytes: espeak-ng keeps its data path, with what it appends, in a fixed buffer of 160"""


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Prosody:
    """espeak-ng's own controls."""

    rate: int = 175
    """words per minute, 80 to 450"""
    pitch: int = 50
    """0 to 99; 50 is the voice's own"""
    range: int = 50
    """0 (monotone) to 99"""
    gap: int = 0
    """pause between words, in units of 10 ms at the default rate"""


@dataclass(frozen=True)
class Speech:
    """What the engine said."""

    pcm: NDArray[np.int16]
    """(samples,) at RATE"""
    segments: tuple[tuple[str, int, int], ...]
    """(IPA symbol with stress mark or PAUSE, first sample, end sample); they tile `pcm`"""


def version() -> str:
    """Of the wheel, read without loading it. Raises UserError when it is not installed."""
    try:
        return importlib.metadata.version("espeakng-loader")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError('espeak-ng is not installed (GPL, so it is optional): pip install "ttsadapt[gpl]"') from error


@cache
def engine() -> "Engine":
    """The engine of this process."""
    return Engine()


@cache
def _installed() -> tuple[str, Path]:
    """Path of the shared library, and a data folder of links to the wheel's.

    The wheel's own folder may lie too deep for espeak-ng's buffer. And espeak-ng opens a language at once only when a file has
    its very name; else it reads all 140 of them, at every fresh start, for twice the time that a sentence takes.
    """
    version()
    import espeakng_loader

    wheel, folder = Path(espeakng_loader.get_data_path()), Path(tempfile.mkdtemp(prefix="espeak-"))
    util.Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)  # unlike atexit: in workers too
    if len(os.fsencode(folder)) > _PATH_LIMIT:
        raise UserError(f"espeak-ng takes paths of at most {_PATH_LIMIT} bytes, not {folder}: set TMPDIR to a shorter folder")
    for item in wheel.iterdir():
        if item.name != "lang":
            (folder / item.name).symlink_to(item)
    (folder / "lang").mkdir()
    for name, (_, file) in _languages(wheel / "lang").items():
        (folder / "lang" / name).symlink_to(file)
    return espeakng_loader.get_library_path(), folder


def _languages(folder: Path) -> dict[str, tuple[int, Path]]:
    """Names of languages with the priority (low is first) and the file of the voice that claims each."""
    best: dict[str, tuple[int, Path]] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        for name, priority in re.findall(r"^language\s+([\w-]+)(?:[^\S\n]+(\d+))?", file.read_text(errors="replace"), re.MULTILINE):
            claim = (int(priority or 5), file)
            best[name.lower()] = min(claim, best.get(name.lower(), claim))
    return best


class Engine:
    """espeak-ng in this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._path, self.data = _installed()
        self._callback = _CALLBACK(self._receive)  # kept here, or it would be collected while the library calls it
        self._pcm: list[bytes] = []
        self._events: list[tuple[int, str]] = []
        self._load()

    def variants(self) -> set[str]:
        """Names that may follow "+" in a voice."""
        return {p.name for p in (self.data / "voices" / "!v").iterdir()}

    def languages(self) -> set[str]:
        """Names that a voice may start with."""
        return {p.name for p in (self.data / "lang").iterdir()}

    def say(self, text: str, voice: str, prosody: Prosody | None = None, seed: int = 0, constant_f0: int = 0) -> Speech:
        """Speak `text` with "language" or "language+variant"; with `constant_f0` (Hz, 0: off) at exactly that pitch.

        Raises UserError for an unknown voice.
        """
        prosody = prosody or Prosody()
        self._reset(seed)
        self._select(voice)
        self._library.espeak_ng_SetConstF0(constant_f0)
        settings = ((_SPEED, prosody.rate), (_VOLUME, _HEADROOM), (_PITCH, prosody.pitch), (_RANGE, prosody.range), (_GAP, prosody.gap))
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, round(value), 0)
        self._pcm, self._events = [], []
        raw = text.replace("\0", " ").encode() + b"\0"
        status = self._library.espeak_Synth(raw, len(raw), 0, 1, 0, _UTF8, None, None)
        if status != 0:
            raise UserError(f"espeak-ng failed (status {status}) on {text!r}")
        self._library.espeak_Synchronize()
        pcm = np.frombuffer(b"".join(self._pcm), dtype=np.int16)
        return Speech(pcm, _tile(self._events, len(pcm)))

    def _load(self) -> None:
        self._library = library = ctypes.CDLL(self._path)
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, bytes(self.data), _PHONE_EVENTS | _IPA | _DONT_EXIT)
        if rate != RATE:
            raise UserError(f'espeak-ng did not start with the data in {self.data}: pip install --force-reinstall "ttsadapt[gpl]"')
        library.espeak_SetSynthCallback(self._callback)

    def _reset(self, seed: int) -> None:
        """Fresh static state and known noise: the formant voices draw from espeak's generator, the Klatt voices from libc's."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        self._load()
        self._library.espeak_ng_SetRandSeed(seed & 0x7FFFFFFF)
        self._libc.srand(seed & 0x7FFFFFFF)

    def _select(self, voice: str) -> None:
        """Before any parameter is set: choosing a voice resets them. An unknown variant would be ignored silently."""
        language, _, variant = voice.partition("+")
        if variant and not _names(self.data / "voices" / "!v", variant):
            raise UserError(f"espeak-ng has no voice variant {variant!r}{nearest(variant, self.variants())}")
        if not _names(self.data / "lang", language) or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no language {language!r}{nearest(language, self.languages())}")

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, count * 2))
        index = 0
        while (event := events[index]).type != _LAST:
            if event.type == _PHONE:
                # The eight bytes are not terminated when a symbol such as ˈɔːɹ fills them.
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0].decode("utf-8", "ignore")
                self._events.append((event.sample, name))
            index += 1
        return 0


def _tile(events: list[tuple[int, str]], samples: int) -> tuple[tuple[str, int, int], ...]:
    """Segments from 0 to `samples`, without empty ones, neighbouring pauses made one."""
    starts = [*events] if events and events[0][0] == 0 else [(0, ""), *events]
    tiles: list[tuple[str, int, int]] = []
    for (start, name), (end, _) in zip(starts, [*starts[1:], (samples, "")]):
        symbol, end = name or PAUSE, min(end, samples)
        if end <= start:
            continue
        if symbol == PAUSE and tiles and tiles[-1][0] == PAUSE:
            tiles[-1] = (PAUSE, tiles[-1][1], end)
        else:
            tiles.append((symbol, start, end))
    return tuple(tiles)


def _names(folder: Path, name: str) -> bool:
    return "/" not in name and name not in ("", ".", "..") and (folder / name).is_file()


def nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    return f": did you mean {' or '.join(close)}?" if close else f": take one of {', '.join(sorted(known))}"
