"""A text as what an acoustic model knows: phones or characters, each belonging to a word."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ttsadapt.data import espeak
from ttsadapt.data.alignment.base import Unaligned
from ttsadapt.data.espeak import PAUSE
from ttsadapt.errors import UserError
from ttsadapt.text.phones import phonemize, split_stress, unlike

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""kana and Chinese characters: written without spaces, each counts as a word"""
_TOKEN = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def words_of(text: str) -> list[str]:
    """The text cut between words; punctuation stays with the word before it (at the start: after it). Nothing else is lost."""
    return [text[a:b] for a, b in word_spans(text)]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends in the text."""
    spans: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(text):
        if spans and not (_said(match.group()) and _said(text[slice(*spans[-1])])):
            spans[-1] = (spans[-1][0], match.end())
        else:
            spans.append(match.span())
    return spans


def _said(token: str) -> bool:
    return any(c.isalnum() for c in token)


class Token(NamedTuple):
    """A class of the acoustic model that has to be heard."""

    symbol: str
    """as it is called in the result"""
    known: str
    """as the acoustic model calls it, or calls what is most like it"""
    word: int
    """the word it belongs to"""


@dataclass(frozen=True)
class Spelled:
    """A text, word by word."""

    words: list[str]
    tokens: list[Token]


class Spelling(ABC):
    """How a text is written in an acoustic model's vocabulary."""

    phones: bool
    """are the tokens phones?"""

    def fingerprint(self) -> str:
        """Changes whenever a text would be spelled otherwise."""
        return type(self).__name__

    @abstractmethod
    def symbols(self, text: str, language: str) -> list[str]:
        """What a model has to learn to hear it."""

    @abstractmethod
    def spell(self, text: str, language: str, vocabulary: Collection[str]) -> Spelled:
        """Raises Unaligned when nothing of the text can be written."""


class Phones(Spelling):
    """espeak-ng's phones. One that the model does not know is looked for as the known one most like it."""

    phones = True

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {espeak.version()}"

    def symbols(self, text: str, language: str) -> list[str]:
        return [split_stress(s)[0] for s in _spoken(text, language) if s != PAUSE]

    def spell(self, text: str, language: str, vocabulary: Collection[str]) -> Spelled:
        words = words_of(text)
        symbols = [s for s in _spoken(text, language) if s != PAUSE]
        if not symbols:
            raise Unaligned(f"nothing in {text!r} can be spoken ({language}): correct the text")
        owners = owned(symbols, [_spoken(w, language) for w in words])
        bare = {s: split_stress(s)[0] for s in symbols}
        stand_in = {b: b if b in vocabulary else most_like(b, vocabulary) for b in bare.values()}
        return Spelled(words, [Token(s, stand_in[bare[s]], w) for s, w in zip(symbols, owners)])


class Characters(Spelling):
    """Letters as they are written. What the model does not know (digits, mostly) is passed over: spell numbers out for exact times."""

    phones = False

    def symbols(self, text: str, language: str) -> list[str]:
        return [c for c in text.lower() if c.isalpha()]

    def spell(self, text: str, language: str, vocabulary: Collection[str]) -> Spelled:
        words, tokens = words_of(text), []
        for i, word in enumerate(words):
            for c in word:
                known = next((v for v in (c, c.lower(), c.upper()) if v in vocabulary), None)
                if known is not None and c.isalnum():
                    tokens.append(Token(c, known, i))
        if not tokens:
            raise Unaligned(f"no letter of {text!r} is in the model's vocabulary: take a model of this language")
        return Spelled(words, tokens)


def _spoken(text: str, language: str) -> tuple[str, ...]:
    """Phones of a text; () where there are none."""
    if not _said(text):
        return ()
    try:
        return phonemize(text, language)
    except UserError as error:
        if "can be spoken" in str(error):
            return ()
        raise


def owned(symbols: Sequence[str], alone: Sequence[Sequence[str]]) -> list[int]:
    """The word that each phone of a sentence belongs to, from the phones of its words when each is said alone.

    A word sounds otherwise among others ("the", "a"), so both are matched by edit distance; the result never goes back.
    """
    import jiwer

    reference = [(split_stress(s)[0], i) for i, word in enumerate(alone) for s in word if s != PAUSE]
    if not reference:
        return [0] * len(symbols)
    heard = [split_stress(s)[0] for s in symbols]
    found = jiwer.process_words(" ".join(s for s, _ in reference), " ".join(heard))
    owners = [-1] * len(symbols)
    for chunk in found.alignments[0]:
        if chunk.type in ("equal", "substitute"):
            for k in range(chunk.hyp_end_idx - chunk.hyp_start_idx):
                owners[chunk.hyp_start_idx + k] = reference[chunk.ref_start_idx + k][1]
    last = next(o for o in [*owners, 0] if o >= 0)
    for i, owner in enumerate(owners):
        last = owners[i] = owner if owner >= 0 else last
    return owners


def most_like(symbol: str, known: Collection[str]) -> str:
    return min(sorted(known), key=lambda k: unlike(symbol, k))
