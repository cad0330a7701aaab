"""How many syllables a text has: one for each vowel, diphthongs included, and each syllabic consonant."""

import unicodedata

from ttsadapt.data.utterance import Utterance
from ttsadapt.text.phones import VOWELS, phonemize, split_stress

_SYLLABIC = "\N{COMBINING VERTICAL LINE BELOW}"


def syllables(utterance: Utterance) -> int:
    """By the manifest's phones, else by espeak-ng's reading of the text."""
    symbols = [p.symbol for p in utterance.phones] or phonemize(utterance.text, utterance.language)
    return sum(is_nucleus(symbol) for symbol in symbols)


def is_nucleus(symbol: str) -> bool:
    """Of an IPA symbol, with or without a stress mark."""
    plain = unicodedata.normalize("NFD", split_stress(symbol)[0])
    return plain[:1] in VOWELS or _SYLLABIC in plain
