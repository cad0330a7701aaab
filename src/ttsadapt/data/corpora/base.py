"""A corpus: how recordings come to lie on disk, in named sets and splits."""

from abc import ABC, abstractmethod
from copy import copy
from pathlib import Path
from typing import Self

SETS = ("source", "target", "ood", "unseen", "terms")
"""what must not be forgotten; what is learnt; other texts and languages; source voices that are held out entirely; rare words"""
SPLITS = ("train", "valid", "test")


class Corpus(ABC):
    """Subclasses take plain values in `__init__` and keep them; nothing heavy happens before `prepare`."""

    cache: Path | None = None
    """what `remembering` gave; None: nothing is remembered"""

    def remembering(self, cache: Path) -> Self:
        """The same corpus, which keeps hashes of files and the like in `cache` between runs."""
        other = copy(self)
        other.cache = Path(cache)
        return other

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever what `prepare` would write changes: a hash of the settings, or of the contents of an input folder."""

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Write `<set>.<split>.jsonl.gz` (through `manifest.write`) and audio below `folder`, with a progress bar.

        The folder may hold what a killed process has written of the very same corpus.
        """
