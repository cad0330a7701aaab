"""Forced alignment by a CTC model (Graves et al. 2006): the likeliest path through what has to be said."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ttsadapt.artifacts import Artifact
from ttsadapt.data.alignment.base import Aligner, Alignment, Unaligned
from ttsadapt.data.alignment.placing import Levels, borders, spans, tiled
from ttsadapt.data.alignment.spelling import Spelling
from ttsadapt.data.found import Word
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.files import digest
from ttsadapt.metrics.signal import RATE, at_rate, speech

REVISION = 2
"""raise it when the same model would put times elsewhere"""


class Acoustic(ABC):
    """What tells the probability of every token at every moment."""

    remedy: str = ""
    poor: float = 0.5
    """see `Aligner`"""
    vocabulary: Mapping[str, int]
    """classes by name, the blank left out; known once open"""
    blank: int

    @abstractmethod
    def fingerprint(self, cache: Path) -> str:
        """Changes whenever `likely` would; `cache` is the folder that runs share."""

    def needs(self, cache: Path) -> tuple[Artifact, ...]:
        """What must exist before `open`."""
        return ()

    def fit(self, utterances: Sequence[Utterance], symbols: Sequence[Sequence[str]], cache: Path) -> str:
        """Learn from what is to be aligned, here or when opened -> a hash of that; "" for a model that is what it is."""
        return ""

    @abstractmethod
    def open(self, cache: Path) -> None:
        """Load the model."""

    @abstractmethod
    def likely(self, audio: Tensor) -> Tensor:
        """(samples,) at RATE, trimmed -> (T, C) log probabilities, evenly spread over it."""


class CTCAligner(Aligner):
    """An acoustic model and the spelling that its vocabulary is in."""

    def __init__(
        self, acoustic: Acoustic, spelling: Spelling, cache_folder: str, least: float = 0.2, drop: float = 25.0, pause: float = 0.06
    ) -> None:
        """A pause is `drop` dB below speech for at least `pause` seconds. For `cache_folder` and `least` see `Aligner`."""
        super().__init__(cache_folder, least)
        self.acoustic, self.spelling, self.drop, self.pause = acoustic, spelling, drop, pause
        self.remedy, self.poor = acoustic.remedy, acoustic.poor

    @property
    def phones(self) -> bool:
        return self.spelling.phones

    def fingerprint(self) -> str:
        return digest([REVISION, self.acoustic.fingerprint(self.cache), self.spelling.fingerprint(), self.drop, self.pause])

    def needs(self) -> tuple[Artifact, ...]:
        return self.acoustic.needs(self.cache)

    def fit(self, utterances: Sequence[Utterance]) -> None:
        symbols = [self.spelling.symbols(u.text, u.language) for u in utterances]
        self.restart(self.acoustic.fit(utterances, symbols, self.cache))

    def open(self) -> None:
        self.acoustic.open(self.cache)

    @torch.inference_mode()
    def align(self, samples: Tensor, rate: int, text: str, language: str) -> Alignment:
        audio = at_rate(samples, rate)
        first, end = speech(audio)
        if end - first < RATE // 20:
            raise Unaligned("no speech to align the text with: replace or remove the recording")
        spelled = self.spelling.spell(text, language, self.acoustic.vocabulary)
        likely = self.acoustic.likely(audio[first:end])
        classes = [self.acoustic.vocabulary[t.known] for t in spelled.tokens]
        found, sure = spans(likely, classes, self.acoustic.blank)
        outputs = [first / RATE + k * (end - first) / RATE / len(likely) for k in range(len(likely) + 1)]  # when each begins
        at = [(outputs[a], outputs[b]) for a, b in found]
        edges = [outputs[k] for k in borders(likely, classes, found, self.acoustic.blank)]
        levels = Levels(audio, RATE, self.drop, self.pause)
        phones, owners = tiled([t.symbol for t in spelled.tokens], [t.word for t in spelled.tokens], at, edges, levels)
        phones[-1] = phones[-1]._replace(end=len(samples) / rate)  # resampling rounds the length
        words = _words(spelled.words, phones, owners)
        return Alignment(tuple(phones) if self.spelling.phones else (), words, sum(sure) / len(sure))


def _words(texts: list[str], phones: list[Phone], owners: list[int]) -> tuple[Word, ...]:
    """From the first to the last phone of each. One of which nothing is heard goes with the one before it (the first: after it)."""
    times: dict[int, tuple[float, float]] = {}
    for phone, owner in zip(phones, owners):
        if owner >= 0:
            times[owner] = (times.get(owner, (phone.start, 0.0))[0], phone.end)
    words: list[Word] = []
    waiting = ""
    for i, text in enumerate(texts):
        if i in times:
            words.append(Word(f"{waiting}{text}", *times[i]))
            waiting = ""
        elif words:
            words[-1] = words[-1]._replace(text=f"{words[-1].text} {text}")
        else:
            waiting += f"{text} "
    return tuple(words)
