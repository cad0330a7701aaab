"""Praat's TextGrid, long and short: both are the same values in the same order, with more or less between them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ttsadapt.errors import DataError

# What is neither in quotes nor a number of its own (`intervals [3]:`, `xmin =`) is for people only (Praat manual, "TextGrid file formats").
_VALUE = re.compile(r'"(?:[^"]|"")*"|(?<![^\s])[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?![^\s])|<exists>|<absent>')


class Tier(NamedTuple):
    """Intervals one after another."""

    name: str
    intervals: list[tuple[str, float, float]]
    """label, start and end in seconds"""


def textgrid(path: Path, text: str) -> list[Tier]:
    """Its interval tiers. Raises DataError when it is none, or is cut short."""
    if "ooTextFile" not in text[:200] or '"TextGrid"' not in text[:400]:
        raise DataError(f'{path}: no TextGrid (it begins with File type = "ooTextFile" and "TextGrid"): save it as a text file in Praat')
    values = _Values(path, text)
    values.string("ooTextFile"), values.string("TextGrid")
    values.number(), values.number()
    return list(_tiers(values)) if values.take() == "<exists>" else []


def _tiers(values: "_Values") -> Iterator[Tier]:
    for _ in range(values.count()):
        kind, name = values.string("the class of a tier"), values.string("the name of a tier")
        values.number(), values.number()
        points = kind == "TextTier"
        found = []
        for _ in range(values.count()):
            start = values.number()
            end = start if points else values.number()
            found.append((values.string("a label"), start, end))
        if not points:
            yield Tier(name, found)


class _Values:
    """Quoted strings, numbers and flags in order."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text, self._found, self._at = path, text, _VALUE.finditer(text), 0

    def take(self) -> str:
        match = next(self._found, None)
        if match is None:
            raise DataError(f"{self._path}: cut short after {len(self._text.splitlines())} lines: write it again")
        self._at = match.start()
        return match.group()

    def string(self, what: str) -> str:
        value = self.take()
        if not value.startswith('"'):
            raise self._wrong(value, f"{what} in quotes")
        return " ".join(value[1:-1].replace('""', '"').split())

    def number(self, what: str = "a number") -> float:
        value = self.take()
        try:
            return float(value)
        except ValueError:
            raise self._wrong(value, what) from None

    def count(self) -> int:
        value = self.number("a count")
        if value < 0 or value != int(value):
            raise self._wrong(f"{value:g}", "a count")
        return int(value)

    def _wrong(self, value: str, what: str) -> DataError:
        line = self._text.count("\n", 0, self._at) + 1
        return DataError(f"{self._path}, line {line}: {' '.join(value.split())[:60]} where {what} is due: write it again")
