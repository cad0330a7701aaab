"""Which of train, valid and test a recording of a user's own belongs to: no sentence in two of them, whatever the set."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ttsadapt.data.corpora.base import SETS, SPLITS
from ttsadapt.data.found import Found
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest

_ALSO = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "test", "training": "train"}


class Rule(ABC):
    """What is never in two splits."""

    noun: str

    @abstractmethod
    def unit(self, found: Found) -> str: ...


@dataclass(frozen=True)
class BySentence(Rule):
    """Sentences, whoever says them."""

    noun = "sentences"

    def unit(self, found: Found) -> str:
        return found.sentence


@dataclass(frozen=True)
class BySpeaker(Rule):
    """Speakers, and no sentence of a training recording: where speakers read the same texts, those are left out of valid and test."""

    noun = "speakers"

    def unit(self, found: Found) -> str:
        return found.utterance.speaker


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


def assign(found: Sequence[Found], fractions: Sequence[float]) -> list[Found]:
    """Fill in every missing split: by a hash of the sentence, so it depends on no order and no machine.

    Splits that are given are kept; a sentence follows the split that it has elsewhere. "ood" is for tests only. Raises
    DataError when given splits share a sentence, or when there are too few sentences to split.
    """
    known = _given(found)
    for name in sorted({f.set for f in found}, key=SETS.index):
        sentences = {f.sentence for f in found if f.set == name}
        free = sorted(sentences - known.keys(), key=lambda text: (digest(text), text))
        if name == "ood":
            known |= dict.fromkeys(free, "test")
        elif free:
            known |= _divide(free, [known[s] for s in sentences & known.keys()], fractions, name)
    return [replace(f, split=known[f.sentence]) for f in found]


def _given(found: Sequence[Found]) -> dict[str, str]:
    first: dict[str, Found] = {}
    for one in found:
        if not one.split:
            continue
        other = first.setdefault(one.sentence, one)
        if other.split != one.split:
            raise DataError(
                f"{one.where}: its sentence is in {one.split} and, at {other.where}, in {other.split}: "
                "give both the same split, or leave the splits out"
            )
    return {sentence: one.split for sentence, one in first.items()}


def _divide(free: list[str], taken: list[str], fractions: Sequence[float], name: str) -> dict[str, str]:
    """Test and valid get their shares of all sentences, and at least one each where the share is not 0; the rest is train."""
    total = len(free) + len(taken)
    if total < sum(share > 0 for share in fractions):
        raise DataError(f"the {name} set has {total} different sentences: record at least one for each split, or give the splits in a csv")
    split: dict[str, str] = {}
    for part, share in zip(("test", "valid"), (fractions[2], fractions[1])):
        wanted = max(round(share * total), 1 if share > 0 else 0) - taken.count(part)
        split |= dict.fromkeys([s for s in free if s not in split][: max(wanted, 0)], part)
    return {s: split.get(s, "train") for s in free}
