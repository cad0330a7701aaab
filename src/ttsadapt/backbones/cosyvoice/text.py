"""What the language model reads: phones of a table that is fitted on the corpus, or pieces of a released tokenizer."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, ConfigError, DataError
from ttsadapt.text.phones import phonemize, split_stress

END_OF_PROMPT = "<|endofprompt|>"
SPECIAL = (
    "<|im_start|>", "<|im_end|>", END_OF_PROMPT, "[breath]", "<strong>", "</strong>", "[noise]", "[laughter]", "[cough]", "[clucking]",
    "[accent]", "[quick_breath]", "<laughter>", "</laughter>", "[hissing]", "[sigh]", "[vocalized-noise]", "[lipsmack]", "[mn]",
)  # fmt: skip
"""symbols that CosyVoice 2 and 3 add to Qwen2's, in the order of their ids"""


class Text(Protocol):
    """Symbols of an utterance and their ids."""

    @property
    def rows(self) -> int:
        """of the text embedding"""

    def fit(self, symbols: Iterable[Sequence[str]], emotions: Iterable[str]) -> None: ...
    def symbols(self, utterance: Utterance) -> tuple[str, ...]:
        """DataError when there are none."""

    def ids(self, symbols: Sequence[str]) -> Tensor:
        """(T,) long"""

    def instruct(self, emotion: str, where: str) -> Tensor:
        """(I,) long: what is said about how to speak, before the text. DataError, naming `where`, for an unknown emotion."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class Phones:
    """Phones and emotions of the pretraining data. An emotion is one symbol before the text."""

    def __init__(self, emotion_aliases: Mapping[str, str] | None = None) -> None:
        """`emotion_aliases`: emotion of the data -> emotion of the pretraining data."""
        self.aliases = dict(emotion_aliases or {})
        self.table: list[str] = []
        self.emotions: list[str] = []

    @property
    def rows(self) -> int:
        """Row 0 is any unknown phone; emotions come last."""
        if not self.table:
            raise DataError("the frontend has no symbols yet: fit it on the pretraining data or restore it from a base")
        return 1 + len(self.table) + len(self.emotions)

    def fit(self, symbols: Iterable[Sequence[str]], emotions: Iterable[str]) -> None:
        self.table, self.emotions = sorted({s for said in symbols for s in said}), sorted(set(emotions))

    def symbols(self, utterance: Utterance) -> tuple[str, ...]:
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        return phones

    def ids(self, symbols: Sequence[str]) -> Tensor:
        rows = {symbol: 1 + i for i, symbol in enumerate(self.table)}
        return torch.tensor([_nearest(symbol, rows) for symbol in symbols], dtype=torch.long)

    def instruct(self, emotion: str, where: str) -> Tensor:
        meant = self.aliases.get(emotion, emotion)
        if meant not in self.emotions:
            raise DataError(
                f"{where}: emotion {meant!r} is not in the pretraining data, which has {', '.join(self.emotions)}: "
                f"say which is meant with +backbone.frontend.text.emotion_aliases.{emotion}=<one of them>"
            )
        return torch.tensor([1 + len(self.table) + self.emotions.index(meant)])

    def state(self) -> dict[str, Any]:
        return {"phones": self.table, "emotions": self.emotions}

    def restore(self, state: dict[str, Any]) -> None:
        self.table, self.emotions = list(state["phones"]), list(state["emotions"])


def _nearest(symbol: str, rows: Mapping[str, int]) -> int:
    """A phone that pretraining did not have falls back on itself without stress, then without length and diacritics."""
    bare, _ = split_stress(symbol)
    plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
    return next((rows[s] for s in (symbol, bare, plain, plain[:1]) if s in rows), 0)


class Pieces:
    """A tokenizer directory or hub id, read by transformers; the emotion is an instruction in words."""

    def __init__(
        self,
        path: str,
        rows: int = 151936,
        special: Sequence[str] = SPECIAL,
        instructs: Mapping[str, str] | None = None,
        otherwise: str = "{emotion}" + END_OF_PROMPT,
    ) -> None:
        """`special`: symbols to add, in order of their ids. `instructs`: {emotion: what to say before the text}; of other emotions
        `otherwise` is said, with the emotion's name in place of {emotion}."""
        self.path, self.rows, self.special = path, rows, list(special)
        self.instructs, self.otherwise = dict(instructs or {}), otherwise
        self._tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tokenizer": None}

    @property
    def tokenizer(self) -> Any:
        """Read when it is first needed."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            path = Path(self.path).expanduser()
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(path if path.is_dir() else self.path)
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"backbone.frontend.text.path={self.path} holds no tokenizer ({str(error).splitlines()[0][:120]}): "
                    "give the CosyVoice-BlankEN directory of the release"
                ) from error
            if self.special:
                self._tokenizer.add_special_tokens({"additional_special_tokens": self.special})
            self._check()
        return self._tokenizer

    def _check(self) -> None:
        if len(self._tokenizer) > self.rows:
            raise ConfigError(
                f"backbone.frontend.text.path={self.path}: {len(self._tokenizer)} symbols do not fit into rows={self.rows} of the model"
            )

    def fit(self, symbols: Iterable[Sequence[str]], emotions: Iterable[str]) -> None:
        """Nothing is learnt, but a directory without a tokenizer is found out now."""
        self.ids(("a",))

    def symbols(self, utterance: Utterance) -> tuple[str, ...]:
        pieces = tuple(self.tokenizer.tokenize(utterance.text.strip()))
        if not pieces:
            raise DataError(f"{utterance.id}: the text {utterance.text!r} is empty: correct or remove it")
        return pieces

    def ids(self, symbols: Sequence[str]) -> Tensor:
        return torch.tensor(self.tokenizer.convert_tokens_to_ids(list(symbols)), dtype=torch.long)

    def instruct(self, emotion: str, where: str) -> Tensor:
        words = self.instructs.get(emotion, self.otherwise.format(emotion=emotion))
        return self.ids(self.tokenizer.tokenize(words))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was learnt."""
