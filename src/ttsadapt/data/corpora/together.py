"""Two corpora as one: what must not be forgotten from the first, what is learnt from the second."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.listed import Listed
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError


class Together(Listed):
    """Ids begin with source- or target-; so do the names of speakers that both corpora have."""

    def __init__(self, source: Listed, target: Listed, bring: Bringing) -> None:
        """What `source` calls its target is source here; every other set stays what it is. `bring` is for both."""
        super().__init__("", bring)
        self.source, self.target = source, target

    def remembering(self, cache: Path) -> Self:
        other = super().remembering(cache)
        other.source, other.target = self.source.remembering(cache), self.target.remembering(cache)
        return other

    def inputs(self) -> list[Path]:
        return [*self.source.inputs(), *self.target.inputs()]

    def code(self) -> set[Path]:
        return super().code() | self.source.code() | self.target.code()

    def found(self) -> Iterator[Found | Rejected]:
        first, second = list(self.source.found()), list(self.target.found())
        speakers = [{one.utterance.speaker for one in ones if isinstance(one, Found)} for ones in (first, second)]
        both = speakers[0] & speakers[1]
        yield from (one for one in (*first, *second) if isinstance(one, Rejected))
        parts = (("source", first), ("target", second))
        named = [_named(one, name, both) for name, ones in parts for one in ones if isinstance(one, Found)]
        if not any(one.set == "target" for one in named):
            raise DataError("target: none of its recordings is in the set target: correct its target or its role")
        yield from named


def _named(one: Found, name: str, both: set[str]) -> Found:
    def renamed(utterance: Utterance) -> Utterance:
        speaker = f"{name}-{utterance.speaker}" if utterance.speaker in both else utterance.speaker
        return replace(utterance, id=f"{name}-{utterance.id}", speaker=speaker, context=tuple(map(renamed, utterance.context)))

    group = f"{name}-{one.group}" if one.group else ""
    return replace(one, utterance=renamed(one.utterance), set=name if one.set == "target" else one.set, group=group)
