"""How the words of a corpus are said: each in isolation, and as it was said inside the sentences of the train splits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from ttsadapt.artifacts import Artifact
from ttsadapt.bars import Bar
from ttsadapt.data import manifest
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import UserError
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.metrics.judges.recogniser import Recogniser, phones_of
from ttsadapt.metrics.recognisers.normaliser import words_of
from ttsadapt.metrics.recognisers.tokens import Entry, heard
from ttsadapt.text.phones import phonemize

REVISION = 1
_LEAST = 0.1
"""share of a word's occurrences from which a way to say it counts"""


class Lexicon(Artifact):
    """`lexicon.json`: entries (word, phones), words that sound alike under one name, and the word error rate on held-out recordings.

    Words come from all splits, so that a test sentence can be heard at all; how they sound inside a sentence from train splits only.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self.version = f"{REVISION}-{digest([REVISION, recogniser.version])}"
        self.folder = recogniser.cache / "judges" / f"lexicon-{self.version}"

    def needs(self) -> tuple[Artifact, ...]:
        return (self.recogniser,)

    def build(self, folder: Path) -> None:
        judge = self.recogniser
        known, languages = set(judge.card["phones"]), set(judge.languages)
        utterances = {n: [u for u in manifest.read(judge.corpus, n) if u.language in languages] for n in manifest.names(judge.corpus)}
        alone = _alone([u for listed in utterances.values() for u in listed])
        said = _inside([u for name, listed in utterances.items() if name.endswith(".train") for u in listed], alone)
        ways = {word: {alone[word], *said.get(word, ())} for word in alone}
        entries = sorted((word, way) for word, listed in ways.items() for way in listed if way and known.issuperset(way))
        names = _alike(entries)
        self._stored: dict[str, Any] = {"entries": entries, "names": names}
        write_json(folder / "lexicon.json", self._stored | {"unit": "%", "error": self._examined()})

    @cached_property
    def stored(self) -> dict[str, Any]:
        return read_json(self.folder / "lexicon.json")

    @property
    def names(self) -> dict[str, str]:
        """{word: the one that stands for all that sound like it}"""
        return self.stored["names"]

    @cached_property
    def entries(self) -> list[Entry]:
        """As the recogniser's classes count them."""
        return self._entries(self.stored)

    def _entries(self, stored: dict[str, Any]) -> list[Entry]:
        index = {p: i + 1 for i, p in enumerate(self.recogniser.card["phones"])}
        each = {(stored["names"][word], tuple(way)) for word, way in stored["entries"]}
        return [Entry(word, tuple(index[p] for p in way)) for word, way in sorted(each)]

    def _examined(self) -> dict[str, float]:
        """Word error rate in % by set, micro-averaged."""
        entries, names = self._entries(self._stored), self._stored["names"]
        wrong: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for clip in Bar(self.recogniser.clips.held_out(), "words on held-out recordings", unit="clip", leave=False):
            wanted = [names.get(w, w) for w in words_of(clip.utterance.text)]
            name = f"{'vocoded' if clip.vocoded else 'recordings'}/{clip.group}"
            likely = self.recogniser.likelihoods(clip.audio)
            wrong[name] += Levenshtein.distance(wanted, [] if likely is None else heard(likely, entries))
            total[name] += len(wanted)
        return {name: round(100 * wrong[name] / total[name], 3) for name in sorted(total) if total[name]}


def _alone(utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    """{word: its phones in isolation}; a word that nothing can be said of has none."""
    wanted = dict.fromkeys((w, u.language) for u in utterances for w in words_of(u.text))
    found: dict[str, tuple[str, ...]] = {}
    for word, language in Bar(wanted, "how words are said", unit="word", leave=False):
        try:
            phonemize(word, language)
        except UserError:
            continue
        found[word] = phones_of(Utterance(word, Path(), word, "", language=language))
    return found


def _inside(utterances: Sequence[Utterance], alone: dict[str, tuple[str, ...]]) -> dict[str, list[tuple[str, ...]]]:
    """{word: ways in which it is often said inside of sentences}"""
    counts: dict[str, Counter[tuple[str, ...]]] = {}
    for utterance in utterances:
        for word, way in _parts(utterance, alone):
            counts.setdefault(word, Counter())[way] += 1
    return {word: [way for way, n in ways.items() if n >= _LEAST * ways.total()] for word, ways in counts.items()}


def _parts(utterance: Utterance, alone: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each word with its piece of the sentence's phones: the sentence is aligned with its words said one by one."""
    words, said = words_of(utterance.text), phones_of(utterance)
    if any(word not in alone for word in words):
        return
    apart = [phone for word in words for phone in alone[word]]
    at = {0: 0}
    for step in Levenshtein.opcodes(apart, said):
        for k in range(step.src_end - step.src_start + 1):
            share = k / max(step.src_end - step.src_start, 1)
            at[step.src_start + k] = step.dest_start + round(share * (step.dest_end - step.dest_start))
    at[len(apart)] = len(said)
    start = 0
    for word in words:
        end = start + len(alone[word])
        way = said[at[start] : at[end]]
        if way and Levenshtein.distance(way, alone[word]) <= max(1, len(alone[word]) // 2):
            yield word, way
        start = end


def _alike(entries: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, str]:
    """{word: the first by the alphabet of all that share a way to be said with it, or with one that does}"""
    first: dict[str, str] = {}

    def root(word: str) -> str:
        while first.setdefault(word, word) != word:
            word = first[word]
        return word

    by_sound: dict[tuple[str, ...], str] = {}
    for word, way in entries:
        one, other = sorted((root(word), root(by_sound.setdefault(way, word))))
        first[other] = one
    return {word: root(word) for word in list(first)}
