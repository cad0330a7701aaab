"""A user's own recordings: audio files with transcripts, and whatever tells the speaker and the emotion."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.listed import Listed
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.recognised import recognised
from ttsadapt.data.recordings import Recordings
from ttsadapt.data.splits import check_role
from ttsadapt.errors import ConfigError, DataError


class Folder(Listed):
    """Every recording below `path` fills the set `role`; those of another folder may fill the source."""

    def __init__(
        self,
        path: str,
        role: str = "target",
        source: Mapping[str, Any] | None = None,
        metadata: str | None = None,
        pattern: str | None = None,
        speaker: str | None = None,
        emotion: str | None = None,
        parent: str = "speaker",
        language: str = "en-us",
        bring: Bringing | None = None,
    ) -> None:
        """How a folder is read: see `Recordings`. `source` holds the same settings for the folder of the source set."""
        super().__init__(path, bring or Bringing())
        check_role(role)
        self.folders = {role: Recordings(str(path), metadata, pattern, speaker, emotion, parent, language)}
        if source:
            if role == "source":
                raise ConfigError("role is source and source is given too: leave one out")
            self.folders["source"] = _recordings(source)

    def inputs(self) -> list[Path]:
        return [recordings.root for recordings in self.folders.values()]

    def settings(self) -> dict[str, Any]:
        read = {role: asdict(r) | {"path": None, "name": r.root.resolve().name} for role, r in self.folders.items()}
        return super().settings() | {"folders": read}

    def found(self) -> Iterator[Found | Rejected]:
        """Raises DataError also where nothing can be used and the folder is a corpus with a layout of its own."""
        usable = False
        for one in self._listed():
            usable = usable or isinstance(one, Found)
            yield one
        if not usable and (name := recognised(self.path)):
            raise DataError(f"{self.path} has no recording with a text beside it, but it looks like a public corpus: data={name} reads it")

    def _listed(self) -> Iterator[Found | Rejected]:
        for role, recordings in self.folders.items():
            for one in recordings.found(role):
                if len(self.folders) == 1 or isinstance(one, Rejected):
                    yield one
                else:  # two folders may well use the same names
                    yield replace(one, utterance=replace(one.utterance, id=f"{role}-{one.utterance.id}"))


def _recordings(settings: Mapping[str, Any]) -> Recordings:
    known = inspect.signature(Recordings).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"source.{unknown[0]}: unknown setting, take of {', '.join(known)}")
    if not settings.get("path"):
        raise ConfigError("source.path is missing: give the folder of the source recordings")
    return Recordings(**settings)
