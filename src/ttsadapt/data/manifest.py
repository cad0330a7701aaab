"""Utterances on disk: one lhotse CutSet per set and split, `<set>.<split>.jsonl.gz`, audio paths relative to its folder.

Every line is a MonoCut with one supervision; phones are its alignment "phone", the emotion is in its custom fields. Any
program that knows lhotse reads the files (from inside the folder). They are written by lhotse's own classes and read
here line by line, which is ten times faster and says which line is wrong.
"""

import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import soundfile

from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError, UserError
from ttsadapt.files import inside, read_json, replacing

SUFFIX = ".jsonl.gz"
PARTS = "parts.json"
"""{"<set>.<split>": name of the folder beside this one that holds it}"""
_BRING_IN = "bring such data in by data=manifest"
_DIGITS = 8
"""lhotse's own precision of times"""


def write(utterances: Iterable[Utterance], folder: Path, name: str) -> None:
    """Write `<folder>/<name>.jsonl.gz`; the same utterances give the same bytes. Raises DataError for duplicate ids."""
    path = folder / f"{name}{SUFFIX}"
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(b"".join(_rows(utterances, folder, path)), compresslevel=6, mtime=0))


def _rows(utterances: Iterable[Utterance], folder: Path, path: Path) -> Iterator[bytes]:
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise DataError(f"{path}: two utterances are called {utterance.id!r}: make every id different")
        seen.add(utterance.id)
        yield json.dumps(_cut(utterance, folder), ensure_ascii=False).encode() + b"\n"


class Deferred(str):
    """Phones as JSON, not yet looked at."""

    __slots__ = ()


class Read(Utterance):
    """An utterance whose phones are read when they are asked for: as objects those of 100 000 utterances take half a gigabyte."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return _phones(value) if isinstance(value, Deferred) else value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Utterance):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(Utterance))

    __hash__ = Utterance.__hash__


def _phones(written: str) -> tuple[Phone, ...]:
    return tuple(_phone(*item[:3]) for item in json.loads(written))


def read(folder: Path, name: str) -> list[Utterance]:
    """The utterances of `<set>.<split>`, audio paths absolute.

    Raises DataError with the line: corrupt JSON, a cut of another form, a duplicate id, audio outside `folder`.
    """
    folder = folder.parent / _parts(folder).get(name, folder.name)
    utterances: dict[str, Utterance] = {}
    earlier: dict[str, list[str]] = {}
    path, below = folder / f"{name}{SUFFIX}", Below(folder)
    if not path.is_file():
        raise DataError(f"no manifest {path}: this folder has {', '.join(names(folder)) or 'none'}")
    for line, where in _lines(path):
        short, aligned = _apart(line)
        row = _parse(short, where)
        utterance = _utterance(row, below, where, aligned)
        if utterance.id in utterances:
            raise DataError(f"{where}: id {utterance.id!r} is there twice: make every id different")
        utterances[utterance.id] = utterance
        if ids := (row["supervisions"][0].get("custom") or {}).get("context"):
            earlier[utterance.id] = ids
    for key, ids in earlier.items():
        utterances[key] = replace(utterances[key], context=_turns(ids, utterances, f"{path}, {key!r}"))
    return list(utterances.values())


_PHONES = re.compile(r'"alignment": \{"phone": (\[(?:\["(?:[^"\\]|\\.)*", [-+.\de]+, [-+.\de]+, null\](?:, )?)+\])\}')
"""as `write` leaves them. Quotation marks within a text are escaped, so it is found nowhere else."""


def _apart(line: str) -> tuple[str, Any]:
    """(the line without its phones, these as they are written): most of the text of a line is never looked at."""
    if not (match := _PHONES.search(line)):
        return line, ""
    return f'{line[: match.start()]}"alignment": null{line[match.end() :]}', Deferred(match[1])


def _turns(ids: list[str], utterances: dict[str, Utterance], where: str) -> tuple[Utterance, ...]:
    if missing := [i for i in ids if i not in utterances]:
        raise DataError(f"{where}: no turn {missing[0]!r} before it: make the manifest again")
    return tuple(replace(utterances[i], context=()) for i in ids)


def names(folder: Path) -> list[str]:
    """Every "<set>.<split>" in the folder, sorted."""
    return sorted({*(p.name.removesuffix(SUFFIX) for p in folder.glob(f"*{SUFFIX}")), *_parts(folder)})


def _parts(folder: Path) -> dict[str, str]:
    """DataError for one that does not lie beside the folder."""
    parts: dict[str, str] = read_json(folder / PARTS) if (folder / PARTS).is_file() else {}
    if wrong := [part for part in parts.values() if Path(part).name != part]:
        raise DataError(f"{folder / PARTS}: {wrong[0]} is no folder beside it: delete {folder} and run again")
    return parts


def rows(file: Path, phones: bool = True) -> Iterator[tuple[dict[str, Any], str]]:
    """Lines of a cuts file, compressed or not, each with "<file>, line <n>". Raises DataError for a corrupt one.

    `phones`: False where alignments are of no interest: without them a line is read several times as fast.
    """
    return ((_parse(line if phones else _apart(line)[0], where), where) for line, where in _lines(file))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    number, opener = 0, gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield line, f"{file}, line {number}"
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file}, after line {number}: corrupt ({error}): make the manifest again") from error


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error.msg}): make the manifest again, or remove the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a cut but a {type(row).__name__}: make the manifest again, or remove the line")
    return row


def _utterance(cut: dict[str, Any], folder: "Below", where: str, aligned: str = "") -> Utterance:
    """`aligned`: its phones as they are written, when they were taken out of the cut."""
    try:
        (supervision,), (source,) = cut["supervisions"], cut["recording"]["sources"]
        custom = supervision.get("custom") or {}
        written = aligned or (supervision.get("alignment") or {}).get("phone", ())
        phones = Deferred(written) if isinstance(written, str) else tuple(_phone(*item[:3]) for item in written)
        if not (cut.get("start", 0) == 0 and cut["duration"] == cut["recording"]["duration"] and source["type"] == "file"):
            raise DataError(f"{where}: the cut is not one whole audio file: {_BRING_IN}")
        return Read(
            id=cut["id"],
            audio=folder.below(source["source"], where),
            text=supervision["text"],
            speaker=sys.intern(supervision["speaker"]),
            emotion=sys.intern(custom.get("emotion", "neutral")),
            language=sys.intern(supervision.get("language") or "en-us"),
            duration=cut["duration"],
            phones=phones,  # type: ignore[arg-type]
            label=sys.intern(custom.get("label", "")),
            hash=custom.get("hash", ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not a cut with one recording and one supervision ({error!r}): {_BRING_IN}") from error


class Below:
    """Audio files below a folder. Where a folder within it really lies is looked up once, not for every file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._name, self._real = folder, str(folder), dict[str, Path]()

    def below(self, relative: str, where: str) -> Path:
        """Absolute; DataError when it leaves the folder."""
        place, _, name = relative.rpartition("/")
        try:
            if not name or name == ".." or os.path.islink(f"{self._name}/{relative}"):
                return inside(self.folder, relative)
            if place not in self._real:
                inside(self.folder, relative)  # the message has its whole name
                self._real[place] = inside(self.folder, place)
        except UserError as error:
            raise DataError(f"{where}: {error}") from error
        return self._real[place] / name


def _phone(symbol: str, start: float, duration: float) -> Phone:
    return Phone(symbol, start, round(start + duration, _DIGITS))


def _cut(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """What lhotse writes for it."""
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource
    from lhotse.supervision import AlignmentItem

    relative, info = _relative(utterance, folder), _info(utterance)
    duration = info.frames / info.samplerate
    recording = Recording(utterance.id, [AudioSource("file", [0], relative)], info.samplerate, info.frames, duration)
    custom: dict[str, Any] = {"emotion": utterance.emotion} | ({"label": utterance.label} if utterance.label else {})
    custom |= {"context": [turn.id for turn in utterance.context]} if utterance.context else {}
    custom |= {"hash": utterance.hash} if utterance.hash else {}
    phones = [AlignmentItem(p.symbol, round(p.start, _DIGITS), round(p.end - p.start, _DIGITS)) for p in utterance.phones]
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        custom=custom,
        alignment={"phone": phones} if phones else None,
    )
    return MonoCut(utterance.id, 0.0, duration, 0, supervisions=[supervision], recording=recording).to_dict()


def _relative(utterance: Utterance, folder: Path) -> str:
    audio, root = utterance.audio.resolve(), folder.resolve()
    if not audio.is_relative_to(root):
        raise DataError(f"{utterance.id!r}: {audio} lies outside {root}: copy the recording below the manifest's folder")
    return audio.relative_to(root).as_posix()


def _info(utterance: Utterance) -> Any:
    try:
        info = soundfile.info(utterance.audio)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{utterance.id!r}: cannot read {utterance.audio} as audio: replace or remove it") from error
    if not info.frames:
        raise DataError(f"{utterance.id!r}: {utterance.audio} holds no samples: replace or remove it")
    return info
