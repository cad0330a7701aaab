"""What a Chinese language model makes of every phone's character (chinese-roberta-wwm-ext-large in GPT-SoVITS)."""

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from ttsadapt.errors import CheckpointError, DataError

LAYER = -3
"""of `hidden_states`, the one the authors take"""
CHINESE = ("zh", "cmn")
"""beginnings of the languages that have features; all others have zeros"""
SYLLABLE = 2
"""phones of a character: initial and final"""


class Bert:
    """Text and phones -> (P, size) features. Nothing is read before it is needed; only the path goes to worker processes."""

    def __init__(self, path: str) -> None:
        """`path`: a folder in transformers' layout or a hub id."""
        self.path = str(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def model(self) -> Any:
        return self._read(AutoModel.from_pretrained).eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> Any:
        return self._read(AutoTokenizer.from_pretrained)

    def _read(self, reader: Any) -> Any:
        try:
            return reader(self.path)
        except (OSError, ValueError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"backbone.frontend.bert={self.path} cannot be read ({told[0][:120]}): give a folder or hub id, or null"
            ) from error

    @property
    def size(self) -> int:
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, text: str, phones: Sequence[str], language: str, where: str) -> Tensor:
        """(P, size): a character's vector for each of its phones, zeros for other languages than Chinese.

        DataError when characters and phones do not go together.
        """
        if not language.startswith(CHINESE):
            return torch.zeros(len(phones), self.size)
        characters = [c for c in unicodedata.normalize("NFKC", text) if not c.isspace()]
        repeats = torch.tensor([SYLLABLE if unicodedata.category(c) == "Lo" else 1 for c in characters])
        if int(repeats.sum()) != len(phones):
            raise DataError(
                f"{where}: {len(phones)} phones for {len(characters)} characters: with backbone.frontend.bert a Chinese character "
                f"takes {SYLLABLE} and a mark 1; correct the phones, write numbers out, or set bert to null"
            )
        tokens = self.tokenizer(characters, is_split_into_words=True, return_tensors="pt")
        states = self.model(**tokens, output_hidden_states=True).hidden_states[LAYER][0, 1:-1]
        if len(states) != len(characters):
            raise DataError(f"{where}: the text model does not take {text!r} character by character: write it in Chinese characters only")
        return states.repeat_interleave(repeats, 0).float()
