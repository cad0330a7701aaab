"""What VALL-E X reads: one symbol a character of IPA, in the inventory of the released model or in one fitted on a corpus."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.text.phones import phonemize, split_stress

UNKNOWN = "[UNK]"
SYMBOLS = (
    UNKNOWN, "[CLS]", "[SEP]", "[PAD]", "[MASK]",
    *"!#*,-.=?NQ^_`abdefghijklmnopstuvwxyz~æçðŋɑɔəɛɥɪɫɯɸɹɾʃʊʑʒʰˈˌθ…⁼↑→↓",
)  # fmt: skip
"""of the released tokenizer, row by row: 70 (bpe_69.json, which has no merges)"""
LANGUAGES = {"en": 0, "zh": 1, "ja": 2}
"""rows of the released language table (prompt files of the authors' count otherwise: zh, ja, en)"""
_ALSO = {"cmn": "zh", "jp": "ja"}
_TAGGED = re.compile(r"\[(EN|ZH|JA)\](.*?)\[\1\]", re.DOTALL)
_MARK = re.compile(r"\[(EN|ZH|JA)\]")


class Text(Protocol):
    """Text -> symbols -> rows of the text table."""

    @property
    def size(self) -> int: ...
    def fit(self, spoken: Iterable[Sequence[str]], languages: Iterable[str]) -> None: ...
    def spoken(self, utterance: Utterance) -> tuple[str, ...]: ...
    def rows(self, symbols: Sequence[str], language: str, where: str) -> tuple[Tensor, Tensor]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def language_row(language: str, where: str) -> int:
    """Row of a language name such as "en-us", "cmn" or "ja"."""
    short = language.lower().replace("_", "-").split("-")[0]
    row = LANGUAGES.get(_ALSO.get(short, short))
    if row is None:
        raise DataError(f"{where}: VALL-E X has no language {language!r}, it knows {', '.join(LANGUAGES)}: leave the utterance out")
    return row


class PhonemeText:
    """Text that is written in the released model's symbols already; a tag such as [ZH] switches the language of what follows."""

    size = len(SYMBOLS)

    def __init__(self) -> None:
        self._rows = {symbol: i for i, symbol in enumerate(SYMBOLS)}

    def fit(self, spoken: Iterable[Sequence[str]], languages: Iterable[str]) -> None:
        """The inventory is given."""

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        return _symbols(utterance.text, utterance.id)

    def rows(self, symbols: Sequence[str], language: str, where: str) -> tuple[Tensor, Tensor]:
        """(L,) rows of symbols, unknown ones [UNK], and of the language of each."""
        row, phones, languages = language_row(language, where), [], []
        for symbol in symbols:
            if _MARK.fullmatch(symbol):
                row = LANGUAGES[symbol[1:-1].lower()]
            else:
                phones.append(self._rows.get(symbol, self._rows[UNKNOWN]))
                languages.append(row)
        return torch.tensor(phones, dtype=torch.long), torch.tensor(languages, dtype=torch.long)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""


class GraphemeText(PhonemeText):
    """Text in English, Chinese or Japanese, by the packages whose symbols the released model learnt (`ttsadapt[vallex]`).

    Without tags all of a text is in the utterance's language; with tags, as in "[EN]Hello[EN][ZH]你好[ZH]", what stands
    between them is, and text outside of them is refused (the authors' code drops it silently).
    """

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        text, default = utterance.text, utterance.language
        if not _MARK.search(text):
            tag = {v: k for k, v in LANGUAGES.items()}[language_row(default, utterance.id)].upper()
            return _symbols(f"[{tag}]{phonemes(text, tag)}", utterance.id)
        outside = _TAGGED.sub("", text).strip(" _")
        if outside:
            raise DataError(
                f"{utterance.id}: {outside[:40]!r} stands outside of language tags: write [EN]...[EN], [ZH]...[ZH] or [JA]...[JA]"
            )
        return _symbols("".join(f"[{tag}]{phonemes(said, tag)}" for tag, said in _TAGGED.findall(text)), utterance.id)


def phonemes(text: str, tag: str) -> str:
    """A text in the language EN, ZH or JA -> IPA with spaces, a full stop at the end if it has no final mark."""
    modules = {"EN": "english", "ZH": "mandarin", "JA": "japanese"}
    try:
        said = import_module(f"ttsadapt.text.vallex_{modules[tag]}").to_ipa(text)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'phonemes of [{tag}] need the package {error.name!r}: pip install "ttsadapt[vallex]", or give phonemes and set '
            "backbone.frontend.text._target_=ttsadapt.text.vallex.PhonemeText"
        ) from error
    said = said.rstrip()
    return said + "." if said and said[-1] not in ".,!?-…~" else said


def _symbols(text: str, where: str) -> tuple[str, ...]:
    """One symbol a character, tags whole, spaces as "_"."""
    symbols = tuple(part for part in re.split(r"(\[(?:EN|ZH|JA)\])|(.)", text.replace(" ", "_"), flags=re.DOTALL) if part)
    if all(_MARK.fullmatch(s) for s in symbols):
        raise DataError(f"{where}: the text {text!r} has no phones: correct or remove it")
    return symbols


class CorpusText:
    """The phones of a corpus (its manifest's, else espeak-ng's) and its languages, in tables that are fitted on it."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._languages: dict[str, int] = {}

    @property
    def size(self) -> int:
        return len(self._rows)

    def fit(self, spoken: Iterable[Sequence[str]], languages: Iterable[str]) -> None:
        """DataError when there are more languages than the model has rows for."""
        known = sorted(set(languages))
        if len(known) > len(LANGUAGES):
            raise DataError(f"the data are in {', '.join(known)}, VALL-E X has room for {len(LANGUAGES)} languages: leave some out")
        self._fill(sorted({symbol for symbols in spoken for symbol in symbols}), known)

    def _fill(self, symbols: Sequence[str], languages: Sequence[str]) -> None:
        self._rows = {symbol: i for i, symbol in enumerate([UNKNOWN, *symbols])}
        self._languages = {language: i for i, language in enumerate(languages)}

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        return phones

    def rows(self, symbols: Sequence[str], language: str, where: str) -> tuple[Tensor, Tensor]:
        """(L,) rows of symbols and of the language.

        What the corpus lacks falls back: a phone on itself without stress, then bare; a language on the first, for its phones say
        what it sounds like.
        """
        if not self._rows:
            raise DataError("the frontend has no symbols yet: fit it on the pretraining data or restore it from a base")
        phones = torch.tensor([self._row(symbol) for symbol in symbols], dtype=torch.long)
        return phones, torch.full_like(phones, self._languages.get(language, 0))

    def _row(self, symbol: str) -> int:
        bare, _ = split_stress(symbol)
        plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
        return next((self._rows[s] for s in (symbol, bare, plain, plain[:1]) if s in self._rows), self._rows[UNKNOWN])

    def state(self) -> dict[str, Any]:
        return {"symbols": list(self._rows)[1:], "languages": list(self._languages)}

    def restore(self, state: dict[str, Any]) -> None:
        self._fill(state["symbols"], state["languages"])
