"""Recordings that lie on disk already: a subclass says what there is, the rest is done here."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ttsadapt.data import bringing_item, loudness, pcm, splits
from ttsadapt.data.bringing import Bringing, plain
from ttsadapt.data.bringing_in import bring_in
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.layouts.files import folder
from ttsadapt.files import content_hash, digest


class Listed(Corpus):
    """A folder (or a file) at `path` in a layout that the subclass knows."""

    def __init__(self, path: str, bring: Bringing) -> None:
        self.path, self.bring = str(path), bring

    @abstractmethod
    def found(self) -> Iterator[Found | Rejected]:
        """Everything there is, no audio decoded. What cannot be used is `Rejected`, the rest goes on.

        Raises DataError in one line when there is nothing of this layout at all. Order does not matter.
        """

    @property
    def root(self) -> Path:
        """`path`. Raises DataError when it is no folder."""
        return folder(self.path)

    def inputs(self) -> list[Path]:
        """Files, and folders with all that is below them, whose contents decide what is written."""
        return [self.root]

    def settings(self) -> dict[str, Any]:
        """What else decides it: the attributes, but for where things lie."""
        derived = {"path", "cache", *(k for k in vars(self) if isinstance(getattr(type(self), k, None), cached_property))}
        return {k: plain(v) for k, v in vars(self).items() if k not in derived}

    def fingerprint(self) -> str:
        """Contents, settings, and the code that makes the audio; where the recordings lie does not matter."""
        code = [content_hash(Path(str(m.__file__))) for m in (bringing_item, loudness, pcm, splits)]
        return digest([type(self).__qualname__, self.settings(), code, Hashes(self.cache).of(self.inputs())])

    def prepare(self, folder: Path) -> None:
        bring_in(self.found(), folder, self.bring)
