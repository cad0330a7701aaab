"""Text to phones, by the engine that also speaks the embedded corpus: the same symbols, in the same order."""

import unicodedata
from functools import lru_cache
from itertools import takewhile

from ttsadapt.data.espeak import PAUSE, engine
from ttsadapt.errors import UserError

VOWELS = frozenset("aeiouyæøœɐɑɒɔəɘɚɛɜɝɞɤɨɪɯɵɶʉʊʌʏᵻ")
"""letters of IPA that vowels and diphthongs begin with"""
_STRESS = {"ˈ": 1, "ˌ": 2}


@lru_cache(maxsize=4096)
def phonemize(text: str, language: str = "en-us") -> tuple[str, ...]:
    """IPA symbols with stress marks, pauses as "_", in the language's own voice at its default rate.

    Raises UserError when nothing of the text can be spoken, for an unknown language, and when espeak-ng is not installed.
    """
    symbols = tuple(symbol for symbol, _, _ in engine().say(text, language).segments)
    if all(symbol == PAUSE for symbol in symbols):
        raise UserError(f"nothing in {text!r} can be spoken ({language}): give a text with words")
    return symbols


def split_stress(symbol: str) -> tuple[str, int]:
    """(symbol without its mark, 0 unstressed | 1 primary ˈ | 2 secondary ˌ): two small inventories instead of their product."""
    stress = _STRESS.get(symbol[:1], 0)
    return (symbol[1:], stress) if stress and len(symbol) > 1 else (symbol, 0)


def unlike(symbol: str, known: str) -> tuple[int, bool]:
    """Sorts known symbols by how well they stand in: longest common prefix (accents apart), then vowel for vowel."""
    a, b = unicodedata.normalize("NFD", symbol), unicodedata.normalize("NFD", known)
    prefix = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))
    return -prefix, (a[:1] in VOWELS) != (b[:1] in VOWELS)
