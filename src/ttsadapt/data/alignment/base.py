"""What an aligner is: samples and a text in; phones, words and how sure that is out; nothing is aligned twice."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import soundfile
import torch
from torch import Tensor

from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.bars import Bar
from ttsadapt.data.alignment.store import Store, key
from ttsadapt.data.found import Rejected, Word
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError

_SOME = 10
"""alignments after which it is said that they are poor"""


class Unaligned(DataError):
    """A text that could not be laid along its recording; the recording is left out and counted."""


@dataclass(frozen=True)
class Alignment:
    """A text laid along its recording."""

    phones: tuple[Phone, ...]
    """they tile the recording, pauses included; () from an aligner of characters"""
    words: tuple[Word, ...]
    """pieces of the text with their punctuation, in its order; together they are all of it"""
    confidence: float
    """0 to 1: the mean probability of what was to be said at the times it was put at"""


class Aligner(ABC):
    """Subclasses keep plain values in `__init__`; nothing is loaded before something has to be aligned."""

    remedy: str = ""
    """what to do when its alignments are poor"""
    poor: float = 0.5
    """median confidence below which that is said"""

    @property
    def phones(self) -> bool:
        """Does it time phones, or words alone?"""
        return True

    def __init__(self, cache_folder: str, least: float) -> None:
        """`cache_folder`: what runs share lies there. What is less sure than `least` is left out."""
        if not 0 <= least < 1:
            raise ConfigError(f"least is {least}: give 0 (keep everything) to 1")
        self.cache, self.least = Path(cache_folder), least
        self.sure: list[float] = []
        """confidence of every alignment so far"""
        self._learnt = ""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever `align` would put a time elsewhere."""

    def needs(self) -> tuple[Artifact, ...]:
        """What must exist before `open`."""
        return ()

    def open(self) -> None:
        """Load what is needed; called once, when what `needs` names is there."""

    def fit(self, utterances: Sequence[Utterance]) -> None:
        """For aligners that learn from what they are to align: all of it, brought in, before the first of `times`."""

    @abstractmethod
    def align(self, samples: Tensor, rate: int, text: str, language: str) -> Alignment:
        """(samples,) float at `rate` Hz; `language`: espeak-ng's name. Raises Unaligned when `text` cannot be laid along them."""

    def restart(self, learnt: str) -> None:
        """After `fit`: alignments of what was learnt from otherwise (`learnt`, a hash) are not those of now."""
        if learnt != self._learnt:
            self._learnt = learnt
            self.__dict__.pop("_store", None)
            self.__dict__.pop("_opened", None)

    def settings(self) -> dict[str, Any]:
        """What a corpus's fingerprint hears of it."""
        return {"aligner": self.fingerprint(), "least": self.least}

    def times(self, utterance: Utterance) -> Utterance | Rejected:
        """The utterance with its phones, read from its audio; only of an aligner of `phones`."""
        samples, rate = soundfile.read(utterance.audio, dtype="float32", always_2d=True)
        try:
            found = self.aligned(torch.from_numpy(samples.mean(1)), rate, utterance.text, utterance.language)
        except Unaligned as error:
            return Rejected(str(utterance.audio), "alignment", str(error))
        return replace(utterance, phones=found.phones)

    def aligned(self, samples: Tensor, rate: int, text: str, language: str) -> Alignment:
        """As `align`, from the store where it is known. Raises Unaligned also when it is less sure than `least`."""
        name = key(samples, rate, text, language)
        if (row := self._store.get(name)) is None:
            self._store.put(name, row := self._row(samples, rate, text, language))
        if row["why"]:
            raise Unaligned(row["why"])
        self._tell(row["confidence"])
        if row["confidence"] < self.least:
            advice = f"; {self.remedy}" if self.remedy else ""
            raise Unaligned(f"confidence {row['confidence']:.2f} is below {self.least}: is the text what is said?{advice}")
        return Alignment(tuple(Phone(*p) for p in row["phones"]), tuple(Word(*w) for w in row["words"]), row["confidence"])

    def _row(self, samples: Tensor, rate: int, text: str, language: str) -> dict[str, Any]:
        _ = self._opened
        try:
            found = self.align(samples, rate, text, language)
        except Unaligned as error:
            return {"why": str(error)}
        return {"why": "", "phones": found.phones, "words": found.words, "confidence": found.confidence}

    def _tell(self, confidence: float) -> None:
        self.sure.append(confidence)
        if len(self.sure) == _SOME and (middle := median(self.sure)) < self.poor:
            Bar.write(f"alignments are uncertain (median confidence {middle:.2f} of the first {_SOME}); {self.remedy}".rstrip("; "))

    @cached_property
    def _opened(self) -> bool:
        for artifact in self.needs():  # one after another: a recogniser reads the corpus before it
            ensure(artifact)
        self.open()
        return True

    @cached_property
    def _store(self) -> Store:
        name = "-".join(n for n in (type(self).__name__.lower(), self.fingerprint(), self._learnt) if n)
        return Store(self.cache / "alignments" / f"{name}.sqlite")
