"""key.json: what every code of a page stands for. It stays with whoever runs the test."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ttsadapt.errors import UserError
from ttsadapt.files import read_json, write_json

FORMAT = 1


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


def write_key(path: Path, key: Key) -> None:
    write_json(path, asdict(key))


def read_key(path: Path) -> Key:
    """UserError when there is none or it is no key."""
    if not path.is_file():
        raise UserError(f"no {path}: build the page first (the same command without results=)")
    found = read_json(path)
    try:
        if found["format"] != FORMAT:
            raise UserError(f"{path} is of format {found['format']}, this version reads {FORMAT}: read it with the version that wrote it")
        return Key(**found | {"trials": {code: KeyTrial(**trial) for code, trial in found["trials"].items()}})
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no key of a listening test ({error!r}): restore it, without it no answer can be read") from error
