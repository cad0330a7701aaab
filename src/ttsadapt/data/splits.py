"""Which of train, valid and test a recording of a user's own belongs to: nothing that is tested is learnt, whatever the set."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

from ttsadapt.data.corpora.base import SETS, SPLITS
from ttsadapt.data.found import Found, Rejected
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest

WORDS = dict.fromkeys(("train", "training"), "train") | {"test": "test"}
WORDS |= dict.fromkeys(("valid", "dev", "val", "validation", "eval", "evaluation"), "valid")
"""what others call a split -> ours"""
_ADAPTED = ("source", "target")
"""sets in which a model learns voices; voices of the others are tried out on what it has learnt"""

Unit = tuple[str, str]
"""kind and name: a speaker, a sentence, a recording, a group"""


class Rule(ABC):
    """What is divided among train, valid and test, and so never in two of them."""

    kept: ClassVar[tuple[str, ...]]
    """splits in the order in which they keep what several have"""

    @abstractmethod
    def unit(self, found: Found) -> Unit:
        """What is divided, whole."""

    def traces(self, found: Found) -> list[Unit]:
        """All that must not be in two splits, the first is what is told: its unit, its samples, and what it is a part of."""
        others = (("recording", found.utterance.hash), ("group", found.group))
        return [self.unit(found), *((kind, name) for kind, name in others if name)]


@dataclass(frozen=True)
class BySentence(Rule):
    """Sentences, whoever says them. A test set that the corpus gives stays whole: what it shares with train is left out there."""

    kept = ("test", "valid", "train")

    def unit(self, found: Found) -> Unit:
        return "sentence", found.sentence


@dataclass(frozen=True)
class BySpeaker(Rule):
    """Speakers. Voices of "unseen" are enrolled from its train and asked for in its test, so that set is divided within them."""

    texts_apart: bool = True
    """what train has is left out of valid and test; False: they may read the same texts, for corpora of few texts"""

    kept = ("train", "test", "valid")

    def unit(self, found: Found) -> Unit:
        if found.set in _ADAPTED:
            return "speaker", found.utterance.speaker
        return ("sentence", found.sentence) if self.texts_apart else ("recording", found.utterance.id)

    def traces(self, found: Found) -> list[Unit]:
        texts = [("sentence", found.sentence)] if self.texts_apart else []
        return list(dict.fromkeys([*super().traces(found), *texts]))


def named(name: str, where: str) -> str:
    """A split as others may call it -> ours. Raises DataError for another word."""
    word = name.strip().lower()
    if word and word not in WORDS:
        raise DataError(f"{where}: unknown split {name!r}, take one of {', '.join(SPLITS)}")
    return WORDS.get(word, "")


def check_role(role: str) -> None:
    if role not in SETS:
        raise ConfigError(f"role is {role!r}: take one of {', '.join(SETS)}")


def check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions is {list(fractions)}: give three shares of train, valid and test that sum to 1")


def assign(found: Sequence[Found], fractions: Sequence[float], rule: Rule) -> tuple[list[Found], list[Rejected]]:
    """Fill in every missing split: by a hash of the sentence (or speaker), so it depends on no order and no machine, and evenly over the
    emotions of a set as far as whole sentences can be.

    Splits that are given are kept; a sentence follows the split that it has elsewhere, recordings with the same samples and those of one
    `group` stay together. "ood" is for tests only. What still has its unit or its samples in two splits is left out of one and returned.
    Raises DataError when there is too little to split, when nothing of a split is left, and when a speaker of "unseen" is in another set.
    """
    _strangers(found)
    given, left_out = _apart([f for f in found if f.split], rule)
    free = [f for f in found if not f.split]
    together = _Together([*given, *free], rule)
    # What several splits are given for goes to the one that keeps it, whatever the order.
    known = {together.of(f): f.split for f in sorted(given, key=lambda f: rule.kept.index(f.split), reverse=True)}
    for name in sorted({f.set for f in free}, key=SETS.index):
        units = {together.of(f) for f in (*given, *free) if f.set == name}
        new = sorted(units - known.keys(), key=lambda unit: (digest(unit[1]), unit))
        felt: dict[Unit, set[str]] = {}
        for one in (f for f in (*given, *free) if f.set == name):
            felt.setdefault(together.of(one), set()).add(one.utterance.emotion)
        if name == "ood":
            known |= dict.fromkeys(new, "test")
        elif new:
            there = f"the {name} set has {len(units)} different {new[0][0]}s"
            known |= _divide(list(_evenly(new, felt)), [known[u] for u in units & known.keys()], fractions, there)
    divided = [replace(f, split=known[together.of(f)]) for f in free]
    assigned, shared = _apart([*given, *divided], rule)
    leaks = [*left_out, *shared]
    wanted = {(f.set, f.split) for f in found if f.split}
    wanted |= {(f.set, split) for f in free if f.set != "ood" for split, share in zip(SPLITS, fractions) if share > 0}
    _survived(wanted, found, assigned, leaks)
    return assigned, leaks


class _Together:
    """What must be in one split: a union of sets (Tarjan 1975), each named by the least of its units."""

    def __init__(self, found: Iterable[Found], rule: Rule) -> None:
        self.rule, self._parent = rule, dict[Unit, Unit]()
        first: dict[Unit, Unit] = {}
        for one in found:
            unit = rule.unit(one)
            for kind, name in (("hash", one.utterance.hash), ("group", one.group)):
                if name:
                    self._join(first.setdefault((kind, name), unit), unit)

    def of(self, found: Found) -> Unit:
        return self._root(self.rule.unit(found))

    def _root(self, unit: Unit) -> Unit:
        while (parent := self._parent.get(unit, unit)) != unit:
            self._parent[unit] = self._parent.get(parent, parent)
            unit = parent
        return unit

    def _join(self, a: Unit, b: Unit) -> None:
        a, b = sorted((self._root(a), self._root(b)))
        if a != b:
            self._parent[b] = a


def _apart(found: Sequence[Found], rule: Rule) -> tuple[list[Found], list[Rejected]]:
    """Without those that share a trace with another split that goes before theirs."""
    holder: dict[Unit, Found] = {}
    leaks: dict[int, Rejected] = {}
    for i in sorted(range(len(found)), key=lambda i: rule.kept.index(found[i].split)):
        one, traces = found[i], rule.traces(found[i])
        shared = next((t for t in traces if t in holder and holder[t].split != one.split), None)
        if shared is None:
            for trace in traces:
                holder.setdefault(trace, one)
            continue
        other = holder[shared]
        told = f"its {shared[0]} is in {one.split} and, at {other.where}, in {other.split}: it is left out of {one.split}"
        leaks[i] = Rejected(one.where, "leak", told)
    return [one for i, one in enumerate(found) if i not in leaks], [leaks[i] for i in sorted(leaks)]


def _survived(wanted: set[tuple[str, str]], found: Sequence[Found], assigned: Sequence[Found], leaks: Sequence[Rejected]) -> None:
    for name, split in sorted(wanted - {(f.set, f.split) for f in assigned}):
        there = {f.where for f in found if f.set == name and f.split in ("", split)}
        leak = next((f"{leak.where}: {leak.told}" for leak in leaks if leak.where in there), "what it has is in other splits elsewhere")
        raise DataError(
            f"nothing is left for {name}.{split} ({leak}): take another data/bring/split_by (sentence; speaker_only where all speakers "
            "read the same texts), correct the splits that are given, or give 0 for one of data.bring.fractions"
        )


def _strangers(found: Sequence[Found]) -> None:
    heard = {f.utterance.speaker: f for f in found if f.set in _ADAPTED}
    for one in found:
        if one.set == "unseen" and (other := heard.get(name := one.utterance.speaker)):
            raise DataError(f"{one.where}: {name!r} is to be unseen but speaks in the {other.set}, at {other.where}: take one of them out")


def _evenly(units: Sequence[Unit], felt: Mapping[Unit, set[str]]) -> Iterator[Unit]:
    """In an order whose every beginning has emotions in nearly the proportions of the whole; units with the same ones as they came."""
    kinds: dict[tuple[str, ...], list[Unit]] = {}
    for unit in units:
        kinds.setdefault(tuple(sorted(felt[unit])), []).append(unit)
    if len(kinds) == 1:  # a large corpus without emotions: nothing to weigh
        yield from units
        return
    of_all = Counter(emotion for kind, some in kinds.items() for emotion in kind * len(some))
    place = {unit: i for i, unit in enumerate(units)}
    left = {kind: iter(some) for kind, some in kinds.items()}
    following = {kind: next(some) for kind, some in left.items()}
    had, whole = Counter[str](), len(units)
    for count in range(1, whole + 1):
        # What brings the squared distance from `count` shares of each emotion down most; in whole numbers, the same on every machine.
        gain = {kind: sum(2 * (count * of_all[e] - had[e] * whole) - whole for e in kind) for kind in following}
        kind = min(following, key=lambda k: (-gain[k], place[following[k]]))
        yield following[kind]
        had.update(kind)
        if (after := next(left[kind], None)) is None:
            del following[kind]
        else:
            following[kind] = after


def _divide(free: list[Unit], taken: list[str], fractions: Sequence[float], told: str) -> dict[Unit, str]:
    """Test and valid get their shares of all units, and at least one each where the share is not 0; the rest is train."""
    total, parts = len(free) + len(taken), sum(share > 0 for share in fractions)
    if total < parts:
        raise DataError(
            f"{told} for {parts} splits (the same samples, and the pieces of one recording, count as one): take another "
            "data/bring/split_by (sentence, speaker, speaker_only), or 0 for one of data.bring.fractions"
        )
    shares = dict(zip(SPLITS, fractions))
    lacking = [part for part, share in shares.items() if share > 0 and part not in taken]
    split: dict[Unit, str] = {}
    left = iter(free)
    for part in ("test", "valid"):
        wanted = max(round(shares[part] * total), 1 if shares[part] > 0 else 0) - taken.count(part)
        lacking = [other for other in lacking if other != part]  # each of them keeps one
        split |= dict.fromkeys(islice(left, max(min(wanted, len(free) - len(split) - len(lacking)), 0)), part)
    return {unit: split.get(unit, "train") for unit in free}
