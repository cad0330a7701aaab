"""What a listening test asks: screens of clips, and what every answer is worth."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken


class Change(Protocol):
    """What is done to a recording to make an anchor of it."""

    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """(samples,) at `rate` -> (samples,)."""


@dataclass(frozen=True)
class Clip:
    """What is played: a file, as it is or made worse."""

    system: str
    """its label in the study's tables"""
    path: Path
    through: Change | None = None
    copy: int = 0
    """above 0: the same sound with a dither of its own in the last bit, so that the page does not show that two clips are one"""


@dataclass(frozen=True)
class Trial:
    """One screen: clips in the order in which they are shown, a question, and what the answers are worth."""

    item: str
    """what is measured, a row of the results: a system, or one against another"""
    spoken: Spoken
    clips: tuple[tuple[str, Clip], ...]
    """(name, clip): "sample", "reference", "a", "b" or "x" """
    question: str
    worth: Mapping[str, float] = field(hash=False)
    """{answer: value}"""
    accepted: tuple[str, ...] | None = None
    """answers of someone who listens, where they are known: then it is a check and not counted"""


class Task(ABC):
    """One kind of test."""

    unit: str
    """of what is measured, such as "MOS" """
    chance: float | None = None
    """the value of guessing, where answers are worth 0 or 1"""
    answers: Mapping[int, str] | Mapping[str, str]
    """{answer: what stands on its button}, in the order shown"""

    @abstractmethod
    def items(self, pool: Pool) -> Sequence[str]:
        """What is measured. UserError when the study cannot give it."""

    @abstractmethod
    def variants(self) -> int:
        """In how many orders an item can be shown."""

    @abstractmethod
    def trial(self, pool: Pool, spoken: Spoken, item: str, variant: int) -> Trial: ...

    @abstractmethod
    def checks(self, pool: Pool, spoken: Spoken) -> list[Trial]:
        """Trials whose answer is known, as far as this sentence allows."""

    def compared(self, item: str) -> dict[str, int]:
        """{system: sign}: of whose automatic figures the item's value should be the sum; empty where it is not."""
        return {}
