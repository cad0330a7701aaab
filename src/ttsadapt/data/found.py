"""What reading a corpus finds: recordings to bring in, and what cannot be."""

from dataclasses import dataclass
from typing import NamedTuple

from ttsadapt.data.utterance import Utterance


class Word(NamedTuple):
    """A word of the text and when it is said, seconds from the beginning of its file."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Found:
    """A recording as it was found, not yet brought in."""

    utterance: Utterance
    set: str
    split: str
    """ "" where nobody has said"""
    where: str
    """for messages: its file, or the line that names it"""
    start: float = 0.0
    """seconds into its file"""
    end: float | None = None
    """seconds into its file; None: the file's end"""
    words: tuple[Word, ...] = ()
    """when each word of the text is said, where the corpus or the user has told"""
    group: str = ""
    """of recordings that must not be in two splits, such as the pieces of a long one; "" for none"""
    channel: int | None = None
    """of its file; None: the mean of all"""

    @property
    def part(self) -> str:
        return f"{self.set}.{self.split}"

    @property
    def sentence(self) -> str:
        """The text without case and punctuation: what must not be in two splits."""
        return " ".join("".join(c for c in self.utterance.text.lower() if c.isalnum() or c.isspace()).split())


@dataclass(frozen=True)
class Rejected:
    """Something that cannot be brought in; the rest goes on."""

    where: str
    """its file, or the line that names it"""
    kind: str
    """what is counted, such as "no transcript", "unreadable", "duplicate", "too short" """
    told: str
    """one line: what is wrong and what to do"""
