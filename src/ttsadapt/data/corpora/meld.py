"""MELD, and corpora laid out as it is: dialogues of several speakers, a csv for each split (Poria et al. 2019).

Columns Utterance, Speaker, Emotion, Dialogue_ID, Utterance_ID; recordings dia<d>_utt<u>.wav in folders that name the split.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing
from ttsadapt.data.layouts.files import AUDIO, below, holds, split_in
from ttsadapt.data.layouts.files import table as read_table
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError

_COLUMNS = ("utterance", "speaker", "emotion", "dialogue_id", "utterance_id")
_NUMBERS = _COLUMNS[-2:]
_VIDEO = ".mp4"
_STRAY = re.compile("[\x80-\x9f]")
"""Windows' quotation marks and dashes that were saved as if they were Latin-1"""

Row = dict[str, str]
Files = dict[tuple[str, str], Path]
"""(split, stem) -> recording"""


class MELD(Layout):
    def __init__(self, context: int = 0, official: bool = True, **common: Any) -> None:
        """`context`: so many earlier turns of its dialogue stand with every utterance; `official`: splits are those of the files' names."""
        super().__init__(**common)
        if context < 0:
            raise ConfigError(f"context is {context}: give the number of earlier turns, 0 for none")
        self.context, self.official = context, official

    def recordings(self) -> Iterator[Found | Rejected]:
        root = self.root
        tables = {table: rows for table in below(root, (".csv",)) if (rows := _rows(table))}
        if not tables:
            raise DataError(f"{root} has no csv with the columns {', '.join(_COLUMNS)}, {holds(root)}: correct the path")
        files = _files(root)
        if not any(file.suffix in AUDIO for file in files.values()):
            told = (
                f"only videos: for f in $(find . -name '*{_VIDEO}'); do ffmpeg -i $f -vn ${{f%{_VIDEO}}}.wav; done"
                if files
                else holds(root)
            )
            raise DataError(f"{root} has no recording dia<dialogue>_utt<utterance>.wav or .flac, {told}")
        for table, rows in tables.items():
            yield from self._table(table, rows, files, alone=len(tables) == 1)

    def _table(self, table: Path, rows: Sequence[tuple[Row | Rejected, str]], files: Files, alone: bool) -> Iterator[Found | Rejected]:
        split = split_in(table.stem)
        if self.official and not split:
            raise DataError(f"{table}: its name tells none of train, dev, test: rename it, or give official=false")
        turns: list[tuple[tuple[int, int], Utterance]] = []
        for row, where in rows:
            one = row if isinstance(row, Rejected) else self._found(row, split, files, alone, table.stem, where)
            if isinstance(row, Rejected) or not isinstance(one, Found):
                yield one
                continue
            dialogue, number = at = int(row["dialogue_id"]), int(row["utterance_id"])
            if turns and turns[-1][0] != (dialogue, number - 1):  # a dialogue with a hole begins after it
                turns = []
            before = tuple(turn for _, turn in turns[-self.context :]) if self.context else ()
            group = "" if self.official else f"{table.stem}-{dialogue}"
            yield replace(one, group=group, utterance=replace(one.utterance, context=before))
            turns.append((at, one.utterance))

    def _found(self, row: Row, split: str, files: Files, alone: bool, table: str, where: str) -> Found | Rejected:
        if strange := [name for name in _NUMBERS if not row[name].isdigit()]:
            return Rejected(where, "row", f"{strange[0]} is {row[strange[0]]!r} and not a number: correct the row")
        name = f"dia{row['dialogue_id']}_utt{row['utterance_id']}"
        file = files.get((split, name)) or files.get(("", name))
        if not file and alone:
            file = next((f for (_, n), f in files.items() if n == name), None)
        if not file:
            return missing(where, f"there is no {name}.wav in a folder of {split or 'any name'}: extract it, or remove the row")
        if file.suffix == _VIDEO:
            return Rejected(where, "video", f"{file} is not sound alone: ffmpeg -i {file.name} -vn {file.stem}.wav")
        return self._one(file, row, split, table, where)

    def _one(self, file: Path, row: Row, split: str, table: str, where: str) -> Found | Rejected:
        return self.one(
            file,
            row["utterance"],
            row["speaker"],
            row["emotion"],
            id=f"{split or table}_{file.stem}",
            split=split if self.official else "",
            where=where,
        )


def _rows(table: Path) -> list[tuple[Row | Rejected, str]]:
    """Each with "<table>, line <n>", dialogue by dialogue; [] for another kind of csv."""
    reader = read_table(table, "cp1252", "latin-1")
    if set(_COLUMNS) - {name.lower() for name in reader.fieldnames or () if name}:
        return []
    rows = [(_row(row), f"{table}, line {reader.line_num}") for row in reader]
    found = [(row or Rejected(where, "row", "more cells than columns: quote what has a comma"), where) for row, where in rows]
    return sorted(found, key=lambda one: _number(one[0]))


def _row(row: Mapping[str | None, str | None]) -> Row:
    """{} for a row with more cells than there are columns: `csv` gathers them under None."""
    return {} if None in row else {str(k).lower(): _plain(v or "") for k, v in row.items()}


def _number(row: Row | Rejected) -> tuple[int, ...]:
    return tuple(int(row[name]) if isinstance(row, dict) and row[name].isdigit() else -1 for name in _NUMBERS)


def _plain(cell: str) -> str:
    return _STRAY.sub(lambda m: m[0].encode("latin-1").decode("cp1252", "ignore"), cell).strip()


def _files(root: Path) -> Files:
    """Sound goes before video."""
    found = below(root, (_VIDEO, *AUDIO))
    order = sorted(found, key=lambda f: (f.suffix != _VIDEO, f))
    return {(split_in(*reversed(f.relative_to(root).parts[:-1])), f.stem): f for f in order}
