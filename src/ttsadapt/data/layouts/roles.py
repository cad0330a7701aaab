"""Who plays which role: which of a corpus's recordings are the target, which the source, which are held out, which are left alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from ttsadapt.data.found import Found
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError


@dataclass(frozen=True)
class Selection:
    """Utterances that have one of the values everywhere where there are some."""

    speaker: Sequence[str | int] | None = None
    """names as the corpus has them; 14 is also "14", but no other name: YAML reads an unquoted 0011 as 9"""
    emotion: Sequence[str] | None = None
    """of the vocabulary, or the corpus's own word"""
    language: Sequence[str] | None = None
    """espeak-ng's names, such as en-us, cmn"""

    def __post_init__(self) -> None:
        for key, values in self.given.items():
            object.__setattr__(self, key, tuple(values))

    @property
    def given(self) -> dict[str, Sequence[str | int]]:
        return {f.name: values for f in fields(self) if (values := getattr(self, f.name))}

    def takes(self, utterance: Utterance) -> bool:
        return all(any(_is(utterance, key, value) for value in values) for key, values in self.given.items())

    def check(self, name: str, found: Iterable[Found]) -> None:
        """Raise DataError for a value that no utterance has, with those that are there."""
        utterances = [f.utterance for f in found]
        for key, values in self.given.items():
            there = sorted({getattr(u, key) for u in utterances})
            known = {(getattr(u, key), u.label if key == "emotion" else ""): u for u in utterances}.values()
            for value in values:
                if not any(_is(u, key, value) for u in known):
                    quotes = "; quote names with leading zeros" if isinstance(value, int) and any(t.startswith("0") for t in there) else ""
                    raise DataError(f"{name}.{key}: there is no {value!r} here, there is {_few(there)}{quotes}")


@dataclass(frozen=True)
class Roles:
    """The sets that recordings fill; see `conf/data/roles/default.yaml`."""

    target: Selection = field(default_factory=Selection)
    """what is learnt; empty: everything. The rest is the source"""
    unseen: Selection = field(default_factory=Selection)
    """what is held out entirely; empty: nothing. It goes before the target"""
    keep: Selection = field(default_factory=Selection)
    """what is read at all; empty: everything"""
    limit: int | None = None
    """utterances of a speaker, spread evenly over emotions and over the corpus's order; None: all"""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more utterances of a speaker, or null")

    def cast(self, found: Sequence[Found]) -> list[Found]:
        """The recordings that are kept, each in its set. Raises DataError for a speaker, emotion or language that is not there."""
        self.keep.check("keep", found)
        kept = [f for f in found if self.keep.takes(f.utterance)]
        self.target.check("target", kept)
        self.unseen.check("unseen", kept)
        kept = _limited(kept, self.limit) if self.limit else kept
        cast = [replace(f, set=self._set(f.utterance)) for f in kept]
        if cast and self.target.given and not any(f.set == "target" for f in cast):
            if any(self.target.takes(f.utterance) for f in kept):
                both = f"all of target ({_said(self.target)}) is also asked for as unseen ({_said(self.unseen)})"
                raise DataError(f"{both}, which is held out of training: take it out of one of them")
            raise DataError(f"target: no utterance has all of {_said(self.target)} and is not unseen: leave some of it out")
        return cast

    def _set(self, utterance: Utterance) -> str:
        if self.unseen.given and self.unseen.takes(utterance):
            return "unseen"
        return "target" if self.target.takes(utterance) else "source"


def _is(utterance: Utterance, key: str, value: str | int) -> bool:
    name: str = getattr(utterance, key)
    return name == str(value) or (key == "emotion" and str(value).lower() in (name.lower(), utterance.label.lower()))


def _limited(found: Sequence[Found], limit: int) -> list[Found]:
    """At most `limit` of each speaker, in the order they came."""
    kinds: dict[str, dict[tuple[str, str], list[int]]] = {}
    for i, one in enumerate(found):
        kinds.setdefault(one.utterance.speaker, {}).setdefault((one.utterance.emotion, one.split), []).append(i)
    return [found[i] for i in sorted(i for of_one in kinds.values() for i in _spread(list(of_one.values()), limit))]


def _spread(kinds: Sequence[Sequence[int]], limit: int) -> list[int]:
    """`limit` in all, as many of each kind as of any other where there are enough."""
    shares, left = [0] * len(kinds), limit
    while left and (open_ := [k for k, kind in enumerate(kinds) if shares[k] < len(kind)]):
        for k in open_[:left]:
            shares[k] += 1
        left -= len(open_[:left])
    return [kind[i * len(kind) // share] for kind, share in zip(kinds, shares) if share for i in range(share)]


def _few(names: Sequence[str], most: int = 24) -> str:
    return f"{', '.join(names[:most])}{f' and {len(names) - most} more' if len(names) > most else ''}" if names else "nothing"


def _said(selection: Selection) -> str:
    return ", ".join(f"{key}={list(values)}" for key, values in selection.given.items())
