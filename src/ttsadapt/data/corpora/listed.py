"""Recordings that lie on disk already: a subclass says what there is, the rest is done here."""

import importlib.metadata
import sys
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ttsadapt.data import alignment, bringing, emotions, espeak, found, layouts, manifest, pcm, recordings, splits, utterance
from ttsadapt.data.bringing.engine import bring_in
from ttsadapt.data.bringing.settings import Bringing, plain
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.layouts.files import folder
from ttsadapt.files import content_hash, digest
from ttsadapt.text import phones

_CODE = (bringing, layouts, emotions, espeak, found, manifest, pcm, phones, recordings, splits, utterance)


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
        """Contents, settings, the code that finds and makes the audio, versions of what it calls; where recordings lie does not matter."""
        code = [content_hash(path) for path in sorted(self.code())]
        return digest([type(self).__qualname__, self.settings(), code, _versions(), Hashes(self.cache).of(self.inputs())])

    def code(self) -> set[Path]:
        """Files of code that what is written depends on."""
        how = self.bring
        timing = [alignment] if how.segments is not None or how.align is not None else []
        kinds = {kind for part in (self, how.rule, how.denoise, how.segments, how.align) for kind in type(part).__mro__}
        own = [sys.modules[k.__module__] for k in kinds if k.__module__.partition(".")[0] not in sys.stdlib_module_names]
        named = {Path(m.__file__) for m in (*_CODE, *timing, *own) if m.__file__}
        packages = {path for path in named if path.name == "__init__.py"}
        return (named - packages) | {path for package in packages for path in package.parent.glob("*.py")}

    def prepare(self, folder: Path) -> None:
        bring_in(self.found(), folder, self.bring)


def _versions() -> list[str | None]:
    """Of what changes samples or refuses texts; None for espeak-ng where it is not installed: no text is refused then."""
    return [_version(name) for name in ("espeakng-loader", "numpy", "scipy", "soundfile", "soxr", "noisereduce")]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
