"""A corpus on disk, prepared once for every run that asks for the same one."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from ttsadapt.artifacts import Artifact
from ttsadapt.data import manifest
from ttsadapt.data.bringing.engine import ALIGNMENT, DUPLICATES, REJECTED, read_rejected
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError, UserError
from ttsadapt.files import read_json, write_json
from ttsadapt.text.phones import split_stress


class PreparedCorpus(Artifact):
    """Manifests, audio and `card.json` of a corpus, in a folder named by what would be written there."""

    def __init__(self, corpus: Corpus, cache: Path, only: Mapping[str, Sequence[str] | None] | None = None) -> None:
        """`only` of {"speaker", "emotion", "language"}: the values that the target's utterances may have; what is on disk is the whole."""
        self.corpus, self.only = corpus.remembering(cache), _asked(only)
        self.name = type(corpus).__name__.lower()
        self.fingerprint = self.corpus.fingerprint()
        self.folder = Path(cache) / "corpora" / f"{self.name}-{self.fingerprint}"
        self._read: dict[str, list[Utterance]] = {}

    def build(self, folder: Path) -> None:
        try:
            self.corpus.prepare(folder)
            sets = {name: manifest.read(folder, name) for name in manifest.names(folder)}
            if not sets:
                raise DataError(f"the {self.name} corpus has no utterances: check its settings")
            write_json(folder / "card.json", {"name": self.name, "fingerprint": self.fingerprint} | card(sets, folder))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"disk full while preparing {self.folder}: free some space and start again") from error
            raise

    def produce(self) -> None:
        """In a folder from which a killed process goes on; one that ends with a user's mistake leaves what it had brought in."""
        work = self.folder.with_name(f".{self.folder.name}.part")  # under the artifact's lock: nobody else writes there
        work.mkdir(parents=True, exist_ok=True)
        try:
            self.build(work)
        except UserError:
            if not any(path.is_file() for path in (work / "wavs").rglob("*")):  # hours of work are not a mistake's to take
                shutil.rmtree(work, ignore_errors=True)
            raise
        os.replace(work, self.folder)

    @cached_property
    def card(self) -> dict[str, Any]:
        """Sets, splits, counts, seconds, voices, emotions, languages, phones. Only once prepared."""
        return read_json(self.folder / "card.json")

    def names(self) -> list[str]:
        """Every "<set>.<split>" that this corpus has, and that is not empty of what is asked for."""
        return [n for n in manifest.names(self.folder) if not self._partial(n) or self.utterances(n)]

    def utterances(self, name: str) -> list[Utterance]:
        """Of "<set>.<split>", such as "target.train". Raises DataError when the corpus has no such part."""
        if name not in self._read:
            self._read[name] = self._chosen(manifest.read(self.folder, name), name)
        return list(self._read[name])

    def part(self, only: Mapping[str, Sequence[str] | None] | None) -> "PreparedCorpus":
        """The same corpus, another part of its target."""
        other = copy(self)
        other.only, other._read = _asked(only), {}
        return other

    def _partial(self, name: str) -> bool:
        return bool(self.only) and name.startswith("target.")

    def _chosen(self, utterances: list[Utterance], name: str) -> list[Utterance]:
        if not self._partial(name):
            return utterances
        kept = [u for u in utterances if all(getattr(u, key) in values for key, values in self.only.items())]
        if name == "target.train":
            for key, values in self.only.items():
                if missing := sorted(set(values) - {getattr(u, key) for u in utterances}):
                    there = ", ".join(sorted({getattr(u, key) for u in utterances}))
                    raise DataError(f"only.{key}={missing}: the target's training recordings have {there}")
            if not kept:
                asked = ", ".join(f"{key}={values}" for key, values in self.only.items())
                raise DataError(f"only: no training recording of the target has {asked}: leave some of it out")
        return kept


def _asked(only: Mapping[str, Sequence[str] | None] | None) -> dict[str, list[str]]:
    return {str(key): sorted(values) for key, values in (only or {}).items() if values}


def card(sets: dict[str, list[Utterance]], folder: Path) -> dict[str, Any]:
    """Of "<set>.<split>", and what was refused and is there twice, as the files of `folder` have it."""
    phones = {split_stress(phone.symbol)[0] for part in sets.values() for u in part for phone in u.phones}
    rejected = Counter(r.kind for r in read_rejected(folder / REJECTED))
    twice, aligned = folder / DUPLICATES, folder / ALIGNMENT
    return {
        "sets": {name: _summary(part) for name, part in sets.items()},
        "phones": sorted(phones),
        "rejected": dict(rejected.most_common()),
        "duplicates": read_json(twice) if twice.is_file() else [],
        "alignment": read_json(aligned) if aligned.is_file() else None,
    }


def _summary(utterances: list[Utterance]) -> dict[str, Any]:
    counted = {
        "voices": Counter(u.speaker for u in utterances),
        "emotions": Counter(u.emotion for u in utterances),
        "languages": Counter(u.language for u in utterances),
    }
    spoken: dict[str, float] = {}
    labels: dict[str, Counter[str]] = {}
    for u in utterances:
        spoken[u.speaker] = spoken.get(u.speaker, 0.0) + u.duration
        if u.label:
            labels.setdefault(u.emotion, Counter())[u.label] += 1
    return {
        "utterances": len(utterances),
        "seconds": round(sum(u.duration for u in utterances), 2),
        "sentences": len({u.text for u in utterances}),
        **{name: dict(sorted(counter.items())) for name, counter in counted.items()},
        "seconds_of": {name: round(seconds, 2) for name, seconds in sorted(spoken.items())},
        "labels": {emotion: dict(sorted(counter.items())) for emotion, counter in sorted(labels.items())},
        "durations": [round(f(u.duration for u in utterances), 2) for f in (min, median, max)],
    }
