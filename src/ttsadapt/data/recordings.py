"""What lies in a folder of recordings: audio files, their transcripts, who speaks and how."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.files import AUDIO, below, cut, decoded, folder
from ttsadapt.data.splits import named
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import inside

if TYPE_CHECKING:
    import _csv

TRANSCRIPT = (".txt", ".lab")
_GROUPS = ("speaker", "emotion", "language", "split")
_FILE = ("file", "path", "audio", "filename")
_Row = tuple[Path, dict[str, str], str]
"""a recording, what is told of it, where"""


@dataclass(frozen=True)
class Recordings:
    """A folder and how to read it. What a csv says goes before the file name, that before the settings, those before the folder."""

    path: str
    metadata: str | None = None
    """csv or tsv below `path`; None: `metadata.csv` or `metadata.tsv` where there is one"""
    pattern: str | None = None
    """regular expression for file names without suffix, with groups of `speaker`, `emotion`, `language`, `split`"""
    speaker: str | None = None
    """of all recordings; None: what `parent` says"""
    emotion: str | None = None
    """of all recordings; None: what `parent` says, else neutral"""
    parent: str = "speaker"
    """what the name of a recording's folder tells: "speaker", "emotion" or "nothing" """
    language: str = "en-us"

    def __post_init__(self) -> None:
        if self.parent not in ("speaker", "emotion", "nothing"):
            raise ConfigError(f"parent is {self.parent!r}: take one of speaker, emotion, nothing")
        try:
            groups = re.compile(self.pattern or "").groupindex
        except re.error as error:
            raise ConfigError(f"pattern {self.pattern!r} is no regular expression ({error})") from error
        if unknown := set(groups) - set(_GROUPS):
            raise ConfigError(f"pattern has the group {min(unknown)!r}: take of {', '.join(_GROUPS)}")

    @property
    def root(self) -> Path:
        return folder(self.path)

    def found(self, role: str, silent: bool = False) -> Iterator[Found | Rejected]:
        """Every recording with its transcript. `silent`: those without one, too; their text is empty.

        Raises DataError when there are no recordings, or the table of them cannot be read at all.
        """
        empty, table = True, self._table()
        for row in self._from_table(table, silent) if table else self._from_files(silent):
            empty = False
            yield row if isinstance(row, Rejected) else self._one(*row, role, silent)
        if empty:
            raise DataError(f"no audio ({', '.join(AUDIO)}) below {self.root}: give the path of the recordings")

    def _one(self, path: Path, told: dict[str, str], where: str, role: str, silent: bool) -> Found | Rejected:
        known = self._from_folder(path) | self._from_settings()
        if self.pattern:
            if not (match := re.search(self.pattern, path.stem)):
                return Rejected(where, "name", f"{path}: its name does not fit the pattern {self.pattern!r}: correct either")
            known |= {k: v for k, v in match.groupdict().items() if v}
        known |= {k: v for k, v in told.items() if v}
        if not known.get("text", "").strip() and not silent:
            return Rejected(where, "no text", f"{where}: its transcript is empty: write down what is said, or remove the recording")
        utterance = Utterance(
            id=re.sub(r"[^\w.-]+", "_", known.get("id") or path.relative_to(self.root).with_suffix("").as_posix().replace("/", "-")),
            audio=path,
            text=" ".join(known.get("text", "").split()),
            speaker=known.get("speaker") or self.root.resolve().name,
            emotion=known.get("emotion", "neutral"),
            language=known["language"],
        )
        try:
            return Found(utterance, role, named(known.get("split", ""), where), where)
        except DataError as error:
            return Rejected(where, "unknown split", str(error))

    def _from_folder(self, path: Path) -> dict[str, str]:
        return {} if path.parent == self.root or self.parent == "nothing" else {self.parent: path.parent.name}

    def _from_settings(self) -> dict[str, str]:
        given = {"speaker": self.speaker, "emotion": self.emotion, "language": self.language}
        return {k: v for k, v in given.items() if v}

    def _from_files(self, silent: bool) -> Iterator[_Row | Rejected]:
        for path in below(self.root):
            beside = [t for suffix in TRANSCRIPT if (t := path.with_suffix(suffix)).is_file()]
            if not beside and not silent:
                told = f"{path} has no transcript: write {path.with_suffix('.txt').name} beside it, or a metadata.csv"
                yield Rejected(str(path), "no transcript", told)
                continue
            try:
                yield path, {"text": decoded(beside[0]) if beside else ""}, str(path)
            except DataError as error:
                yield Rejected(str(path), "no transcript", str(error))

    def _table(self) -> Path | None:
        if self.metadata is None:
            return next((p for n in ("metadata.csv", "metadata.tsv") if (p := self.root / n).is_file()), None)
        table = inside(self.root, self.metadata)
        if not table.is_file():
            raise DataError(f"no file {table}: correct metadata, or leave it out for transcripts beside the recordings")
        return table

    def _from_table(self, table: Path, silent: bool) -> Iterator[_Row | Rejected]:
        """`silent`: what the table does not name has no text, else it is rejected."""
        by_name: dict[str, list[Path]] = {}
        for path in below(self.root):
            by_name.setdefault(path.stem, []).append(path)
        meant: set[str] = set()
        for row, where in _rows(table):
            if isinstance(row, Rejected):
                yield row
                continue
            relative = next((row[k] for k in _FILE if row.get(k)), None)
            there = [self.root / relative] if relative else by_name.get(row.get("id", ""), [])
            meant.update(os.path.normpath(path) for path in there)
            recording = self._named_by(relative, where) if relative else _only(there, row.get("id", ""), where)
            yield recording if isinstance(recording, Rejected) else (recording, row, where)
        for path in sorted(p for paths in by_name.values() for p in paths if os.path.normpath(p) not in meant):
            told = f"{path}: {table.name} does not name it: add a row, or remove the recording"
            yield (path, {}, str(path)) if silent else Rejected(str(path), "not in the table", told)

    def _named_by(self, relative: str, where: str) -> Path | Rejected:
        try:
            path = inside(self.root, relative)
        except UserError as error:
            return Rejected(where, "outside", f"{where}: {error}")
        if not path.is_file():
            return Rejected(where, "missing file", f"{where}: no recording {path}: correct the row, or remove it")
        return self.root / relative


def _only(found: Sequence[Path], name: str, where: str) -> Path | Rejected:
    if len(found) == 1:
        return found[0]
    several = "several recordings have" if found else "no recording below the folder has"
    kind = "ambiguous" if found else "missing file"
    return Rejected(where, kind, f"{where}: {several} the name {name!r}: correct the row, or give a column `file`")


def _rows(table: Path) -> Iterator[tuple[dict[str, str] | Rejected, str]]:
    """Rows as {column: cell}, with "<table>, line <n>", its first. Without a header the columns are id and text (LJSpeech)."""
    text = decoded(table)
    first = cut(text)[0]
    delimiter = next((d for d in "|\t" if d in first), ",")
    # LJSpeech does not quote: a quotation mark in its text is only that.
    quoted = delimiter == ","
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    columns = header if "text" in header and {"id", *_FILE} & set(header) else None
    if columns is None and (meant := set(header) & {"id", "speaker", "emotion", "language", "split", *_FILE}):
        raise DataError(f"{table}, line 1: a header with {min(meant)!r} needs the columns text and id or file, it has {', '.join(header)}")
    for number, (cells, line) in enumerate(_numbered(reader, table)):
        if not any(cells) or (number == 0 and columns):
            continue
        where = f"{table}, line {line}"
        if len(cells) < (len(columns) if columns else 2):
            told = f"{where}: {len(cells)} columns where {len(columns or 'id')} are due, split at {delimiter!r}: correct the row"
            yield Rejected(where, "row", told), where
            continue
        yield {k: v.strip() for k, v in zip(columns or ("id", "text"), cells)}, where


def _numbered(reader: "_csv.Reader", table: Path) -> Iterator[tuple[list[str], int]]:
    """Each with the line it begins at: a quoted cell may go over several."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{table}, line {line}: {error}: close the quotation marks that are open there") from error
        yield cells, line
