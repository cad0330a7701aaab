"""Rows of the embedding: phones and speech tokens, our own table or a released tokenizer's (neuphonic/neutts-air, TRAINING.md)."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from transformers import AutoTokenizer

from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.text.phones import split_stress

PAD, UNKNOWN = "<|pad|>", "<|unknown|>"
TEXT_START, TEXT_END = "<|TEXT_PROMPT_START|>", "<|TEXT_PROMPT_END|>"
SPEECH_START, SPEECH_END = "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>"
CONTROLS = (TEXT_START, TEXT_END, SPEECH_START, SPEECH_END)

NEUTTS = f"user: Convert the text to speech:{TEXT_START}{{phones}}{TEXT_END}\nassistant:{SPEECH_START}"
"""what stands around the phones; VieNeu-TTS has the control tokens alone"""


class Rows(Protocol):
    """What a model must know of its vocabulary."""

    speech: range
    """rows of the codec's tokens"""
    end: int
    """row of the end of speech"""
    pad: int

    def __len__(self) -> int: ...


def speech_rows(row: Callable[[str], int | None], tokens: int) -> range:
    """Embedding rows of <|speech_0|> ..., looked up one by one: CheckpointError unless they follow each other."""
    found = [row(f"<|speech_{i}|>") for i in range(tokens)]
    first = found[0] if found else None
    if first is None or found != list(range(first, first + tokens)):
        raise CheckpointError(
            f"the vocabulary does not hold <|speech_0|> .. <|speech_{tokens - 1}|> in consecutive rows: it was made for another codec"
        )
    return range(first, first + tokens)


class Vocabulary:
    """Symbols in rows: phones and emotions, then controls, then speech, as a tokenizer that was extended for speech has them."""

    def __init__(self, phones: Sequence[str], emotions: Sequence[str], speech: int) -> None:
        self.phones, self.emotions = list(phones), list(emotions)
        controls = [PAD, UNKNOWN, *CONTROLS]
        symbols = [*self.phones, *map(_emotion, self.emotions), *controls, *(f"<|speech_{i}|>" for i in range(speech))]
        self._rows = {symbol: i for i, symbol in enumerate(symbols)}
        self.speech = speech_rows(self._rows.get, speech)
        self.pad, self.end = self._rows[PAD], self._rows[SPEECH_END]

    def __len__(self) -> int:
        return len(self._rows)

    def prompt(self, symbols: Sequence[str], emotion: str | None) -> list[int]:
        """Everything up to the first speech token."""
        opening = [] if emotion is None else [self._rows[_emotion(emotion)]]
        controls = [self._rows[c] for c in (TEXT_START, TEXT_END, SPEECH_START)]
        return [*opening, controls[0], *map(self._phone, symbols), *controls[1:]]

    def names(self, rows: Sequence[int]) -> list[str | None]:
        """Phones and emotions by row, None for everything else."""
        known = [*self.phones, *self.emotions]
        return [known[row] if row < len(known) else None for row in rows]

    def _phone(self, symbol: str) -> int:
        """A phone that pretraining did not have falls back on itself without stress, then without length and diacritics."""
        if symbol in self._rows:
            return self._rows[symbol]
        bare, _ = split_stress(symbol)
        plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
        return next((self._rows[s] for s in (bare, plain, plain[:1]) if s in self._rows), self._rows[UNKNOWN])


def _emotion(name: str) -> str:
    return f"<|emotion_{name}|>"


class TokenizerVocabulary:
    """A Hugging Face tokenizer that was extended by NeuTTS's control tokens and one token for each code of the codec."""

    def __init__(self, source: str, tokens: int, template: str = NEUTTS) -> None:
        """`source`: a folder or hub id. `template`: the prompt, with {phones} between the text marks, up to the first speech token.

        CheckpointError when there is no tokenizer or when it lacks a control token or the codec's `tokens`.
        """
        self.source = source
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(Path(source).expanduser() if Path(source).expanduser().is_dir() else source)
        except Exception as error:  # OSError, ValueError, and whatever the parsers of half a dozen formats raise
            told = str(error).strip().splitlines()
            raise CheckpointError(
                f"{source}: no tokenizer can be read there ({told[0][:120] if told else type(error).__name__}): "
                "give the released folder, with its tokenizer.json and tokenizer_config.json"
            ) from error
        rows = self.tokenizer.get_vocab()
        absent = [c for c in CONTROLS if c not in rows]
        if absent:
            raise CheckpointError(f"{source}: the tokenizer has no {', '.join(absent)}: it is not a NeuTTS model's")
        self.speech, self.end = speech_rows(rows.get, tokens), rows[SPEECH_END]
        self.pad = self.end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        self._size = max(rows.values()) + 1
        self._before, self._after = self._around(template, rows)

    def __len__(self) -> int:
        return self._size

    def prompt(self, phones: str) -> list[int]:
        """Everything up to the first speech token: the ids of the filled template, put together from its pieces."""
        return [*self._before, *self._ids(phones), *self._after]

    def _around(self, template: str, rows: dict[str, int]) -> tuple[list[int], list[int]]:
        before, found, after = template.partition("{phones}")
        if not found or not before.endswith(TEXT_START) or not after.startswith(TEXT_END) or not after.endswith(SPEECH_START):
            raise ConfigError(
                f"backbone.frontend.template={template!r}: it must hold {TEXT_START}{{phones}}{TEXT_END} and end in {SPEECH_START}"
            )
        opening = self.tokenizer.encode(before)  # with the tokenizer's own first token, if it has one; a last one is cut off
        start = len(opening) - opening[::-1].index(rows[TEXT_START])
        return opening[:start], self._ids(after)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
