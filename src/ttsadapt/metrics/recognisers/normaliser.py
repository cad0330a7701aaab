"""Text on both sides of a word error rate made alike: Whisper's normalisers (Radford et al. 2022, appendix C), from transformers."""

import re
from functools import cache
from typing import Any

import transformers


def version() -> str:
    return f"whisper-normaliser transformers {transformers.__version__}"


def words_of(text: str) -> list[str]:
    """Lower-case runs of letters, digits and apostrophes."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def normalised(text: str, language: str) -> str:
    """Lower case, no punctuation; in English numbers as digits, contractions spelt out, fillers left out. American and British
    spellings stay apart: the table that joins them comes with a released tokeniser only."""
    return " ".join(_normaliser(language.partition("-")[0] == "en")(text).split())


@cache
def _normaliser(english: bool) -> Any:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if english else BasicTextNormalizer()
