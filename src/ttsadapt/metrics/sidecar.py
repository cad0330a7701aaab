"""What is known of how clips were spoken, in a table beside them: synthesis writes it, metrics read it."""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ttsadapt.errors import DataError
from ttsadapt.files import replacing

NAME = "speaking.csv"
COLUMNS = ("clip", "capped", "seconds", "first_audio", "streamed", "duration", "device")
"""the clip's name; 1 when it was cut at the longest that the model may say; spoken alone and warmed up: seconds to the last sample, to
the first, 1 when they came in pieces, seconds of audio; what it was spoken on. What was not measured is empty"""
Facts = dict[str, str]


def note(folder: Path, found: Mapping[str, Mapping[str, str]]) -> None:
    """Add {clip: columns} to the table of `folder`."""
    known = dict(facts(folder))
    for clip, said in found.items():
        known[clip] = known.get(clip, {}) | {"clip": clip} | dict(said)
    with replacing(folder / NAME) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(known[clip] for clip in sorted(known))


def facts(folder: Path) -> Mapping[str, Facts]:
    """{clip: columns}; {} where there is no table. DataError when it is something else."""
    path = folder / NAME
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=8)
def _read(path: Path, written: int) -> Mapping[str, Facts]:
    """`written`: when; a table that was written anew is read anew."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise DataError(f"{path} has no column {min(missing)}: delete it and synthesise the set again")
        return {row["clip"]: row for row in reader}
