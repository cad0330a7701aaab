"""Alignments that were made, by the content of what was aligned: a killed command goes on where it was."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from torch import Tensor

from ttsadapt.errors import UserError


def key(samples: Tensor, rate: int, text: str, language: str) -> str:
    """Of (samples,) at 16 bits, and what is said."""
    state = hashlib.blake2b(json.dumps([rate, text, language], ensure_ascii=False).encode())
    state.update((samples.clamp(-1, 1) * 32767).round().short().numpy().tobytes())
    return state.hexdigest()[:32]


class Store:
    """One file for one aligner, safe for several processes; every row is on disk whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._rows = sqlite3.connect(path, timeout=60, isolation_level=None)
            # Rows can be made again, so they need not survive a power cut: no waiting for the disk.
            self._rows.execute("PRAGMA synchronous=OFF")
            self._rows.execute("CREATE TABLE IF NOT EXISTS alignments (name TEXT PRIMARY KEY, row TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def get(self, name: str) -> dict[str, Any] | None:
        try:
            found = self._rows.execute("SELECT row FROM alignments WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return json.loads(found[0]) if found else None

    def put(self, name: str, row: dict[str, Any]) -> None:
        try:
            self._rows.execute("INSERT OR REPLACE INTO alignments VALUES (?, ?)", (name, json.dumps(row, ensure_ascii=False)))
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self.path}: {error}: free some space, or delete the file (alignments are then made again), and start again")
