"""Phones as rows of a table: one fitted on a corpus, or the one that a checkpoint was trained with."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from ttsadapt.errors import DataError
from ttsadapt.text.phones import split_stress

UNKNOWN = "<unknown>"


class PhoneTable:
    """Row i is symbol i. With a row for what is unknown, a foreign phone falls back on a near one; without, it is refused."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self._rows = {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, spoken: Iterable[Sequence[str]]) -> Self:
        return cls([*sorted({symbol for phones in spoken for symbol in phones}), UNKNOWN])

    @classmethod
    def read(cls, path: str) -> Self:
        """A text file with one symbol a line, or a .json list, in the order of the checkpoint's table."""
        file = Path(path).expanduser()
        try:
            text = file.read_text(encoding="utf-8")
            symbols = json.loads(text) if file.suffix == ".json" else text.splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"backbone.frontend.symbols={path} cannot be read ({str(error).splitlines()[0]}): give a text file with one phone a line, "
                "in the order of the checkpoint's table"
            ) from error
        if not isinstance(symbols, list) or not all(isinstance(s, str) and s for s in symbols) or len(set(symbols)) < len(symbols):
            raise DataError(f"{file}: every line (or item) must be one phone, and none may come twice: export the checkpoint's table again")
        return cls(symbols)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._rows

    def rows(self, symbols: Sequence[str], where: str) -> Tensor:
        """(P,) long; DataError for a phone that is not in a table without a row for it."""
        return torch.tensor([self._row(symbol, where) for symbol in symbols], dtype=torch.long)

    def _row(self, symbol: str, where: str) -> int:
        if symbol in self._rows:
            return self._rows[symbol]
        if UNKNOWN not in self._rows:
            known = ", ".join(self.symbols[:3])
            raise DataError(
                f"{where}: phone {symbol!r} is not among the {len(self)} of the checkpoint ({known} ...): give the phones of its own "
                "text front end in the manifest, or leave the utterance out"
            )
        bare, _ = split_stress(symbol)
        plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
        return next((self._rows[s] for s in (bare, plain, plain[:1]) if s in self._rows), self._rows[UNKNOWN])
