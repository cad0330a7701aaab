"""English for VALL-E X: numbers and abbreviations in words, CMUdict through `eng_to_ipa`, then the model's own symbols."""

import re
from functools import cache
from typing import Any

import eng_to_ipa
import inflect
from unidecode import unidecode

TITLES = {
    "mrs": "misess", "mr": "mister", "drs": "doctors", "dr": "doctor", "st": "saint", "co": "company", "jr": "junior", "maj": "major",
    "gen": "general", "rev": "reverend", "lt": "lieutenant", "hon": "honorable", "sgt": "sergeant", "capt": "captain", "esq": "esquire",
    "ltd": "limited", "col": "colonel", "ft": "fort",
}  # fmt: skip
"""what the model was taught to read for an abbreviation with its full stop"""
SYMBOLS: dict[str, str | int | None] = {"r": "ɹ", "ʤ": "dʒ", "ʧ": "tʃ"}
_VOWELS = "aeiouæɑɔəɛɪʊ"


def to_ipa(text: str) -> str:
    """A word that CMUdict lacks stays as it is spelled, with "*" after it: the model heard such words in training, too."""
    said = eng_to_ipa.convert(in_words(unidecode(text).lower()))
    said = re.sub(r"\s+", " ", str(said))
    # An l that no vowel follows before the word ends is dark.
    said = re.sub(rf"l([^{_VOWELS} ]*(?: |$))", r"ɫ\1", said)
    return said.translate(str.maketrans(SYMBOLS))


def in_words(text: str) -> str:
    """Lower-case ASCII with abbreviations, amounts, decimals, ordinals and numbers written out."""
    for short, whole in TITLES.items():
        text = re.sub(rf"\b{short}\.", whole, text)
    text = re.sub(r"[0-9][0-9,]+[0-9]", lambda m: m[0].replace(",", ""), text)
    text = re.sub(r"£([0-9,]*[0-9]+)", r"\1 pounds", text)
    text = re.sub(r"\$([0-9.,]*[0-9]+)", lambda m: dollars(m[1].replace(",", "")), text)
    text = re.sub(r"[0-9]+\.[0-9]+", lambda m: m[0].replace(".", " point "), text)
    text = re.sub(r"[0-9]+(?:st|nd|rd|th)", lambda m: _words(m[0]), text)
    return re.sub(r"[0-9]+", lambda m: number(int(m[0])), text)


def dollars(amount: str) -> str:
    """ "3.50" -> "3 dollars, 50 cents" """
    whole, *rest = amount.split(".")
    if len(rest) > 1:
        return f"{amount} dollars"
    counts = [(int(whole or 0), "dollar"), (int(rest[0] or 0) if rest else 0, "cent")]
    told = [f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in counts if n]
    return ", ".join(told) or "zero dollars"


def number(value: int) -> str:
    """As years are read between 1000 and 3000: 1648 is sixteen, forty-eight."""
    if not 1000 < value < 3000:
        return _words(value, andword="")
    if value == 2000:
        return "two thousand"
    if 2000 < value < 2010:
        return f"two thousand {_words(value % 100)}"
    if value % 100 == 0:
        return f"{_words(value // 100)} hundred"
    return _words(value, andword="", zero="oh", group=2).replace(", ", " ")


def _words(value: int | str, **how: Any) -> str:
    return str(_engine().number_to_words(value, **how))


@cache
def _engine() -> inflect.engine:
    return inflect.engine()
