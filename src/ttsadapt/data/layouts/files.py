"""What the readers of corpora share about files: where a corpus begins, what lies in it, text in whatever encoding."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from ttsadapt.data.splits import WORDS
from ttsadapt.errors import DataError

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_SMALL = 512  # bytes; no recording is that small
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".rar")


def folder(path: str) -> Path:
    """DataError where there is none."""
    root = Path(path).expanduser()
    if root.is_file():
        what = "an archive: extract it and give the folder" if root.suffix.lower() in _ARCHIVES else "a file: give its folder"
        raise DataError(f"path={path} is {what}")
    if not root.is_dir():
        raise DataError(f"path={path}: there is no such folder: give the one with the recordings")
    return root


def rooted(path: str, *needed: str) -> Path:
    """The folder with all of `needed`: `path`, or one in it (archives bring a folder of their own).

    Raises DataError that says what is missing and what there is.
    """
    root = folder(path)
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))]
    best = max([only(root), *places], key=lambda place: sum((place / name).exists() for name in needed))
    if missing := [name for name in needed if not (best / name).exists()]:
        raise DataError(f"{best} has no {' and no '.join(missing)}, {holds(best)}: extract the whole archive, or correct the path")
    return best


def only(place: Path) -> Path:
    """The folder that a folder holds nothing else but, or itself."""
    entries = [p for p in place.iterdir() if not p.name.startswith(".")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else place


def holds(place: Path, most: int = 8) -> str:
    """What a folder has, for messages."""
    names = sorted(p.name + "/" * p.is_dir() for p in place.iterdir() if not p.name.startswith("."))
    return f"it holds {', '.join(names[:most])}{f' and {len(names) - most} more' if len(names) > most else ''}" if names else "it is empty"


def below(place: Path, suffixes: Sequence[str] = AUDIO) -> list[Path]:
    """Every file with one of the suffixes, sorted; hidden ones (such as macOS's `._name.wav`) are none."""
    paths = (Path(name) for name in walk(place))
    return sorted(p for p in paths if p.suffix.lower() in suffixes and not p.name.startswith("."))


def walk(place: str | Path, above: Set[str] = frozenset()) -> Iterator[str]:
    """Paths of all files below, those of linked folders too; a folder that is linked into itself has nothing there.

    Raises DataError for a folder that cannot be read, and a file whose name is not UTF-8.
    """
    here = os.path.realpath(place)
    if here in above:
        return
    try:
        with os.scandir(place) as entries:
            found = list(entries)
    except OSError as error:
        raise DataError(f"cannot read the folder {place} ({error.strerror}): change who may read it, or remove it") from error
    for entry in found:
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from walk(entry.path, above | {here})
        elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
            yield utf8(entry.path)


def utf8(path: str) -> str:
    """As it is. Raises DataError for a name that is not UTF-8: neither table nor message could hold it."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{os.fsencode(path)!r}: its name is not UTF-8: rename it") from error
    return path


def decoded(file: Path, *fallbacks: str) -> str:
    """Text by its byte order mark, else UTF-8, else the first of `fallbacks` that fits. Raises DataError when none does."""
    raw = file.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    elif b"\0" in raw[:64]:
        encodings = ("utf-16-le" if raw[1:2] == b"\0" else "utf-16-be",)
    else:
        encodings = ("utf-8-sig", *fallbacks)
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    tried = " or ".join(encoding.removesuffix("-sig").upper() for encoding in encodings)
    raise DataError(f"{file} is not {tried} text: save it as UTF-8")


def lines(file: Path, *fallbacks: str) -> Iterator[tuple[str, str]]:
    """(line, "<file>, line <n>") of those that are not blank."""
    for number, line in enumerate(cut(decoded(file, *fallbacks)), 1):
        if line.strip():
            yield line, f"{file}, line {number}"


def cut(text: str) -> list[str]:
    """Lines as editors count them: `splitlines` would also cut at form feeds, U+0085 and U+2028, which are part of a text."""
    return re.split(r"\r\n|\n|\r", text)


def table(file: Path, *fallbacks: str) -> "csv.DictReader[str]":
    """Rows of a csv with a header."""
    return csv.DictReader(io.StringIO(decoded(file, *fallbacks), newline=""))


def pointer(file: Path) -> bool:
    """Has Git LFS left its note instead of the file?"""
    return file.stat().st_size < _SMALL and file.read_bytes().startswith(b"version https://git-lfs")


def split_in(*names: str) -> str:
    """The split that the first of the names tells: "train_splits" -> "train", "dev-clean" -> "valid"; "" for none."""
    words = (word for name in names for word in re.findall(r"[a-z]+", name.lower()))
    return next((WORDS[word] for word in words if word in WORDS), "")
