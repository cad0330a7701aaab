"""A corpus whose layout is known: what its files are called and where its texts, speakers and emotions stand."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.base import SPLITS
from ttsadapt.data.corpora.listed import Listed
from ttsadapt.data.emotions import EMOTIONS, common
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.files import holds, pointer
from ttsadapt.data.layouts.roles import Roles, Selection
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError


class Layout(Listed):
    """Subclasses say what there is, one recording after another (`recordings`); roles, emotions and duplicates are cared for here."""

    spoken: ClassVar[str] = "en-us"
    """the corpus's language, an espeak-ng name"""

    def __init__(
        self,
        path: str,
        bring: Bringing,
        language: str | None = None,
        target: Selection | None = None,
        unseen: Selection | None = None,
        keep: Selection | None = None,
        limit: int | None = None,
        emotions: Mapping[str, str] | None = None,
    ) -> None:
        """`language` of all recordings, None: the corpus's own; `emotions` {the corpus's word: ours}, before the table in `emotions.py`.

        For the rest see `Roles`.
        """
        super().__init__(path, bring)
        self.language, self.emotions = language, dict(emotions or {})
        self.roles = Roles(target or Selection(), unseen or Selection(), keep or Selection(), limit)

    @abstractmethod
    def recordings(self) -> Iterator[Found | Rejected]:
        """What there is, in the corpus's order; made by `one`. Raises DataError for what makes all of it unusable."""

    def found(self) -> Iterator[Found | Rejected]:
        """Every recording in its set, after what is rejected. Raises DataError when there is nothing, or a role is for nobody."""
        whole: dict[str, Found] = {}
        rejected: list[Rejected] = []
        for one in self.recordings():
            if isinstance(one, Rejected):
                rejected.append(one)
            elif other := whole.get(one.utterance.id):
                told = f"the id {one.utterance.id!r} is also that of {other.where}: remove or rename one of them"
                rejected.append(Rejected(one.where, "duplicate id", told))
            else:
                whole[one.utterance.id] = one
        self._check(whole.values(), rejected)
        cast = self.roles.cast(list(whole.values()))
        yield from rejected
        yield from cast

    def one(
        self,
        audio: Path,
        text: str,
        speaker: str,
        label: str = "",
        *,
        id: str | None = None,
        split: str = "",
        language: str | None = None,
        where: str | None = None,
    ) -> Found | Rejected:
        """A recording as it was found; Rejected when its text is empty, its emotion unknown or its file only promised."""
        where = where or str(audio)
        if not text.strip():
            return Rejected(where, "no transcript", "its transcript is empty: write down what is said, or remove the recording")
        if pointer(audio):
            return missing(where, f"{audio.name} is a note of Git LFS and no recording: git lfs pull in {self.root}")
        if (emotion := common(label, self.emotions)) is None:
            return Rejected(
                where, "unknown emotion", f"{label!r}: give emotions={{{label}: <one of {', '.join(EMOTIONS)}, or your own word>}}"
            )
        utterance = Utterance(
            id=re.sub(r"[^\w.-]+", "_", id or audio.stem),
            audio=audio,
            text=" ".join(text.split()),
            speaker=speaker,
            emotion=emotion,
            language=self.language or language or self.spoken,
            label="" if label.lower() == emotion else label,
        )
        return Found(utterance, "target", split, where)

    def _check(self, whole: Iterable[Found], rejected: Sequence[Rejected]) -> None:
        splits = {one.split for one in whole}
        if splits - {""} and (lacking := [name for name in SPLITS if name not in splits]):
            there = ", ".join(sorted(splits))
            raise DataError(f"official=true: {self.root} has only {there} and no {lacking[0]}: extract that, or give official=false")
        if splits:
            return
        if not rejected:
            root = self.root
            raise DataError(
                f"no recording of {type(self).__name__} below {root}, {holds(root)}: extract the whole archive, or correct the path"
            )
        first, more = rejected[0], len(rejected) - 1
        raise DataError(
            f"{first.where}: {first.told}{f' ({more} more are rejected, and nothing is left)' if more else ' (nothing else is there)'}"
        )


def unknown(file: Path, wanted: str) -> Rejected:
    """A file whose name does not say what it is."""
    return Rejected(str(file), "unknown name", f"its name is not {wanted}: rename or remove it")


def silent(where: Path | str, told: str) -> Rejected:
    return Rejected(str(where), "no transcript", told)


def missing(where: Path | str, told: str) -> Rejected:
    return Rejected(str(where), "missing file", told)
