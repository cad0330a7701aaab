"""Hashes of files, remembered for as long as their size and time of change stay the same: nobody reads 40 GB to start a run."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ttsadapt.bars import Bar
from ttsadapt.data.layouts.files import utf8, walk
from ttsadapt.files import content_hash, digest

_TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, hash TEXT) WITHOUT ROWID"
_FLUSH = 256
"""files after whose hashing what is known is written, so that a killed process has not read in vain"""
_YOUNG = 2_000_000_000
"""ns since its last change within which a file may change again without its time showing it: it is not remembered"""

Facts = tuple[str, int, int]
"""path, bytes, ns of the last change"""


class Hashes:
    """A table in `cache`, shared between processes; without a cache nothing is remembered."""

    def __init__(self, cache: Path | None) -> None:
        self.file = cache / "hashes.sqlite" if cache else None

    def of(self, paths: Sequence[Path]) -> str:
        """Of contents and names: files by their hash, folders by the names and hashes of all files below them; not where they lie."""
        below = [_below(path) for path in paths]
        known = self._known(fact for _, facts in below for fact in facts)
        return digest([[[file[start:], known[file]] for file, _, _ in facts] for start, facts in below])

    def _known(self, facts: Iterable[Facts]) -> dict[str, str]:
        wanted = {fact[0]: fact for fact in facts}
        if self.file is None:
            return {name: content_hash(Path(name)) for name in wanted}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=60)) as table:
            table.execute(_TABLE)
            known = dict(_remembered(table, wanted))
            missing = [fact for name, fact in wanted.items() if name not in known]
            fresh: list[tuple[str, int, int, str]] = []
            for fact in Bar(missing, "hashing files", unit="file", leave=False, disable=len(missing) < _FLUSH):
                known[fact[0]] = content_hash(Path(fact[0]))
                fresh.append((*fact, known[fact[0]]))
                if len(fresh) == _FLUSH:
                    _keep(table, fresh)
                    fresh = []
            _keep(table, fresh)
        return known


def _remembered(table: sqlite3.Connection, wanted: dict[str, Facts]) -> Iterator[tuple[str, str]]:
    # One pass over the range of names: much quicker than a question for each of 100 000 files.
    if not wanted:
        return
    rows = table.execute("SELECT path, size, changed, hash FROM files WHERE path BETWEEN ? AND ?", (min(wanted), max(wanted)))
    for path, size, changed, known in rows:
        if wanted.get(path) == (path, size, changed):
            yield path, known


def _keep(table: sqlite3.Connection, rows: Iterable[tuple[str, int, int, str]]) -> None:
    old = time.time_ns() - _YOUNG
    with table:
        table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", [row for row in rows if row[2] < old])


def _below(path: Path) -> tuple[int, list[Facts]]:
    """Where names within it begin, and its files, sorted; a file has no name within itself."""
    whole = os.path.abspath(path)
    if os.path.isfile(whole):
        return len(whole), [_facts(whole)]
    return len(whole) + 1, sorted(_facts(file) for file in walk(whole))


def _facts(path: str) -> Facts:
    found = os.stat(utf8(path))
    return path, found.st_size, found.st_mtime_ns
