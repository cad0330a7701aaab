"""Text as models over frames of codes read it: phones of a table fitted on the data, or a released tokenizer's ids."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.text.phones import phonemize, split_stress

ROLES = tuple("0123456789")
"""who speaks, as CSM names the parts in a conversation"""
UNKNOWN, BEGIN, END = "<|unknown|>", "<|begin_of_text|>", "<|end_of_text|>"


class Text(ABC):
    """Symbols of an utterance -> rows of the text embedding."""

    leading: int
    """ids before those of the first symbol"""

    @property
    @abstractmethod
    def size(self) -> int:
        """Rows of the text embedding."""

    @abstractmethod
    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        """What is said, as symbols. DataError when there is nothing to say."""

    @abstractmethod
    def ids(self, symbols: Sequence[str], role: str) -> list[int]:
        """begin [role] symbols end"""

    def fit(self, utterances: Sequence[Utterance]) -> None:
        """Learn the table of symbols, where there is one to learn."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`."""


class PhoneText(Text):
    """One id for every phone of the pretraining data."""

    leading = 2

    def __init__(self) -> None:
        self.phones: list[str] = []

    @property
    def size(self) -> int:
        return len(self._rows)

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        """Phones of the manifest, else espeak-ng's."""
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        return phones

    def ids(self, symbols: Sequence[str], role: str) -> list[int]:
        return [self._rows[BEGIN], self._rows[f"[{role}]"], *map(self._row, symbols), self._rows[END]]

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.restore({"phones": sorted({s for u in utterances for s in self.spoken(u)})})

    def state(self) -> dict[str, Any]:
        return {"phones": self.phones}

    def restore(self, state: dict[str, Any]) -> None:
        self.phones = list(state["phones"])
        self.__dict__.pop("_rows", None)

    @cached_property
    def _rows(self) -> dict[str, int]:
        if not self.phones:
            raise DataError("the frontend has no symbols yet: fit it on the pretraining data or restore it from a base")
        return {s: i for i, s in enumerate([UNKNOWN, BEGIN, END, *(f"[{role}]" for role in ROLES), *self.phones])}

    def _row(self, symbol: str) -> int:
        """A phone that pretraining did not have falls back on itself without stress, then without length and diacritics."""
        bare, _ = split_stress(symbol)
        plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
        return next((self._rows[s] for s in (symbol, bare, plain, plain[:1]) if s in self._rows), self._rows[UNKNOWN])


class TokenizerText(Text):
    """Written text through a tokenizer, in the layout that CSM was trained on. Symbols are characters: they join to the text.

    Role and text are tokenised together, since a byte-pair token may reach from the one into the other.
    """

    leading = 1

    def __init__(self, path: str) -> None:
        """`path`: a folder with a fast tokenizer's files, or a hub id; read when it is first needed."""
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            return AutoTokenizer.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise CheckpointError(f"{self.path}: no tokenizer can be read from there ({told}): download all files of the model") from error

    @property
    def size(self) -> int:
        return len(self.tokenizer)

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        text = " ".join(utterance.text.split())
        if not any(c.isalnum() for c in text):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no words: correct or remove it")
        return tuple(text)

    def ids(self, symbols: Sequence[str], role: str) -> list[int]:
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if begin is None or end is None:
            raise CheckpointError(f"{self.path}: the tokenizer has no token for the beginning or the end of a text: it is not CSM's")
        return [begin, *self.tokenizer.encode(f"[{role}]{''.join(symbols)}", add_special_tokens=False), end]
