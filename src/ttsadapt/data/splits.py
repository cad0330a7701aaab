"""Which of train, valid and test a recording of a user's own belongs to: nothing that is tested is learnt, whatever the set."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ttsadapt.data.corpora.base import SETS, SPLITS
from ttsadapt.data.found import Found, Rejected
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest

_ALSO = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "test", "training": "train"}


class Rule(ABC):
    """What is divided among train, valid and test, and so never in two of them."""

    noun: ClassVar[str]
    kept: ClassVar[tuple[str, ...]]
    """splits in the order in which they keep a sentence that several have"""

    @abstractmethod
    def unit(self, found: Found) -> str: ...


@dataclass(frozen=True)
class BySentence(Rule):
    """Sentences, whoever says them. A test set that the corpus gives stays whole: what it shares with train is left out there."""

    noun = "sentences"
    kept = ("test", "valid", "train")

    def unit(self, found: Found) -> str:
        return found.sentence


@dataclass(frozen=True)
class BySpeaker(Rule):
    """Speakers; where they read the same texts, what train has is left out of valid and test.

    Voices of "unseen" are enrolled from its train and asked for in its test, so that set goes by sentences.
    """

    noun = "speakers"
    kept = ("train", "test", "valid")

    def unit(self, found: Found) -> str:
        return found.sentence if found.set == "unseen" else found.utterance.speaker


def named(name: str, where: str) -> str:
    """A split as others may call it -> ours. Raises DataError for another word."""
    split = _ALSO.get(name.strip().lower(), name.strip().lower())
    if split and split not in SPLITS:
        raise DataError(f"{where}: unknown split {name!r}, take one of {', '.join(SPLITS)}")
    return split


def check_role(role: str) -> None:
    if role not in SETS:
        raise ConfigError(f"role is {role!r}: take one of {', '.join(SETS)}")


def check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions is {list(fractions)}: give three shares of train, valid and test that sum to 1")


def assign(found: Sequence[Found], fractions: Sequence[float], rule: Rule) -> tuple[list[Found], list[Rejected]]:
    """Fill in every missing split: by a hash of the sentence (or speaker), so it depends on no order and no machine.

    Splits that are given are kept; a sentence follows the split that it has elsewhere, recordings with the same samples and those of one
    `group` stay together. "ood" is for tests only. What still has a sentence or its samples in two splits is left out of one and returned.
    Raises DataError when there is too little to split, and when a speaker of "unseen" is in "source".
    """
    _strangers(found)
    given, left_out = _apart([f for f in found if f.split], rule.kept)
    free = [f for f in found if not f.split]
    together = _Together([*given, *free], rule)
    known = {together.of(f): f.split for f in given}
    for name in sorted({f.set for f in free}, key=SETS.index):
        units = {together.of(f) for f in (*given, *free) if f.set == name}
        there = f"{name} set has {len(units)} different {rule.noun}"
        new = sorted(units - known.keys(), key=lambda unit: (digest(unit), unit))
        if name == "ood":
            known |= dict.fromkeys(new, "test")
        elif new:
            known |= _divide(new, [known[u] for u in units & known.keys()], fractions, there)
    assigned, shared = _apart([*given, *(replace(f, split=known[together.of(f)]) for f in free)], rule.kept)
    return assigned, [*left_out, *shared]


class _Together:
    """What must be in one split: a union of sets (Tarjan 1975), each named by the least of its units."""

    def __init__(self, found: Iterable[Found], rule: Rule) -> None:
        self.rule, self._parent = rule, dict[str, str]()
        first: dict[tuple[str, str], str] = {}
        for one in found:
            unit = rule.unit(one)
            for kind, name in (("hash", one.utterance.hash), ("group", one.group)):
                if name:
                    self._join(first.setdefault((kind, name), unit), unit)

    def of(self, found: Found) -> str:
        return self._root(self.rule.unit(found))

    def _root(self, unit: str) -> str:
        while (parent := self._parent.get(unit, unit)) != unit:
            self._parent[unit] = self._parent.get(parent, parent)
            unit = parent
        return unit

    def _join(self, a: str, b: str) -> None:
        a, b = sorted((self._root(a), self._root(b)))
        if a != b:
            self._parent[b] = a


def _apart(found: Sequence[Found], kept: Sequence[str]) -> tuple[list[Found], list[Rejected]]:
    """Without those whose sentence or samples are in another split that goes before theirs in `kept`."""
    holder: dict[tuple[str, str], Found] = {}
    for one in sorted(found, key=lambda f: kept.index(f.split)):
        for key in _traces(one):
            holder.setdefault(key, one)
    stay: list[Found] = []
    leaks: list[Rejected] = []
    for one in found:
        others = [(key[0], other) for key in _traces(one) if (other := holder[key]).split != one.split]
        if others:
            what, other = others[0]
            told = f"its {what} is in {one.split} and, at {other.where}, in {other.split}: it is left out of {one.split}"
            leaks.append(Rejected(one.where, "leak", told))
        else:
            stay.append(one)
    return stay, leaks


def _traces(one: Found) -> list[tuple[str, str]]:
    return [("sentence", one.sentence), *([("recording", one.utterance.hash)] if one.utterance.hash else [])]


def _strangers(found: Sequence[Found]) -> None:
    heard = {f.utterance.speaker: f.where for f in found if f.set == "source"}
    for one in found:
        if one.set == "unseen" and (where := heard.get(one.utterance.speaker)):
            name = one.utterance.speaker
            raise DataError(f"{one.where}: {name!r} is to be unseen but speaks in the source, at {where}: take one of them out")


def _divide(free: list[str], taken: list[str], fractions: Sequence[float], told: str) -> dict[str, str]:
    """Test and valid get their shares of all units, and at least one each where the share is not 0; the rest is train."""
    total = len(free) + len(taken)
    if total < sum(share > 0 for share in fractions):
        raise DataError(
            f"the {told}: record at least one for each split, or give the splits in a csv "
            "(the same samples, and the pieces of one recording, count as one)"
        )
    split: dict[str, str] = {}
    left = iter(free)
    for part, share in zip(("test", "valid"), (fractions[2], fractions[1])):
        wanted = max(round(share * total), 1 if share > 0 else 0) - taken.count(part)
        split |= {unit: part for unit, _ in zip(left, range(wanted))}
    return {unit: split.get(unit, "train") for unit in free}
