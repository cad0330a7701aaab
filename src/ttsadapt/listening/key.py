"""key.json: what every code of a page stands for. It stays with whoever runs the test.

A page that is built anew with other content is another page; the key of the one before is kept as key-<page>.json, for answers to it may
still be out.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ttsadapt.errors import UserError
from ttsadapt.files import read_json, write_json

FORMAT = 1
CURRENT = "key.json"
"""of the page that lies beside it"""


@dataclass(frozen=True)
class KeyTrial:
    """A trial of the page."""

    item: str
    set: str
    utterance: str
    systems: dict[str, str]
    """{name of a clip: who speaks}"""
    worth: dict[str, float]
    seconds: float
    """of all its clips"""
    accepted: list[str] | None = None
    """answers that pass, of a check"""
    repeats: str | None = None
    """the trial that it is once more"""

    @property
    def counts(self) -> bool:
        """Practice, which is listed apart, looks as if it did."""
        return self.accepted is None and self.repeats is None


@dataclass(frozen=True)
class Key:
    """All that reading results needs."""

    page: str
    """an id that follows from everything in the page"""
    salt: str
    """what codes are made with: without it they cannot be guessed"""
    name: str
    study: str
    unit: str
    chance: float | None
    items: list[str]
    kinds: dict[str, str]
    """{item: "ceiling", "vocoder", "floor" or "adapted"}, of those that are systems"""
    compared: dict[str, dict[str, int]]
    """{item: {system: sign}}: whose automatic figures belong to it"""
    trials: dict[str, KeyTrial]
    sheets: list[list[str]]
    training: list[str]
    loudness: float
    """LUFS, of every clip"""
    rate: int
    format: int = FORMAT
    settings: dict[str, Any] = field(default_factory=dict)
    """the page's config"""

    def checks(self) -> Iterator[str]:
        return (code for code, trial in self.trials.items() if trial.accepted is not None and code not in self.training)


def keep_key(folder: Path, key: Key) -> None:
    """Writes key.json; another page's that was there is set aside first."""
    if (folder / CURRENT).is_file() and (before := read_key(folder / CURRENT)).page != key.page:
        write_json(folder / f"key-{before.page}.json", asdict(before))
    write_json(folder / CURRENT, asdict(key))


def read_keys(folder: Path) -> list[Key]:
    """Of every version of the page, the current one's first. UserError when there is none or one is no key."""
    found = [read_key(path) for path in [folder / CURRENT, *sorted(folder.glob("key-*.json"))] if path.is_file()]
    if not found:
        raise UserError(f"no {folder / CURRENT}: build the page first (the same command without results=)")
    return list({key.page: key for key in reversed(found)}.values())[::-1]


def read_key(path: Path) -> Key:
    """UserError when it is no key."""
    found = read_json(path)
    try:
        if found["format"] != FORMAT:
            raise UserError(f"{path} is of format {found['format']}, this version reads {FORMAT}: read it with the version that wrote it")
        return Key(**found | {"trials": {code: KeyTrial(**trial) for code, trial in found["trials"].items()}})
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no key of a listening test ({error!r}): restore it, without it no answer can be read") from error
