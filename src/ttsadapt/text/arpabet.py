"""ARPAbet with stress digits, as g2p_en and the CMU dictionary write it, and the symbol table that HyperTTS numbers it by.

The table is that of keonlee9420/Comprehensive-Transformer-TTS (text/symbols.py), whose rows a released embedding is trained
for: padding, a dash, punctuation, letters, ARPAbet, pinyin, silences.
"""

from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase

from ttsadapt.data.espeak import PAUSE
from ttsadapt.errors import DataError
from ttsadapt.text.phones import split_stress

_VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
_CONSONANTS = [
    "B",
    "CH",
    "D",
    "DH",
    "F",
    "G",
    "HH",
    "JH",
    "K",
    "L",
    "M",
    "N",
    "NG",
    "P",
    "R",
    "S",
    "SH",
    "T",
    "TH",
    "V",
    "W",
    "Y",
    "Z",
    "ZH",
]
_INITIALS = ["b", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "q", "r", "s", "sh", "t", "w", "x", "y", "z", "zh"]
_FINALS = [
    "a",
    "ai",
    "an",
    "ang",
    "ao",
    "e",
    "ei",
    "en",
    "eng",
    "er",
    "i",
    "ia",
    "ian",
    "iang",
    "iao",
    "ie",
    "ii",
    "iii",
    "in",
    "ing",
    "iong",
    "iou",
    "o",
    "ong",
    "ou",
    "u",
    "ua",
    "uai",
    "uan",
    "uang",
    "uei",
    "uen",
    "uo",
    "v",
    "van",
    "ve",
    "vn",
]
_SILENCES = ("sp", "spn", "sil")
PUNCTUATION = "sp"
"""what the authors say for any punctuation between words"""

_IPA = {
    "a": "AE", "aɪ": "AY", "aʊ": "AW", "b": "B", "d": "D", "dʒ": "JH", "eɪ": "EY", "f": "F", "h": "HH", "i": "IY", "iː": "IY",
    "iə": "IY AH", "j": "Y", "k": "K", "l": "L", "m": "M", "n": "N", "oʊ": "OW", "oː": "AO", "p": "P", "r": "R", "s": "S",
    "t": "T", "tʃ": "CH", "u": "UW", "uː": "UW", "v": "V", "w": "W", "x": "K", "z": "Z", "æ": "AE", "ð": "DH", "ŋ": "NG",
    "ɐ": "AH", "ɑ": "AA", "ɑː": "AA", "ɑːɹ": "AA R", "ɑ̃": "AA N", "ɒ": "AA", "ɔ": "AO", "ɔː": "AO", "ɔːɹ": "AO R", "ɔɪ": "OY",
    "oːɹ": "AO R", "ə": "AH", "əl": "AH L", "əʊ": "OW", "ɚ": "ER", "ɛ": "EH", "ɛː": "EH", "ɛɹ": "EH R", "eə": "EH R", "ɜː": "ER",
    "ɝ": "ER", "ɡ": "G", "ɡʲ": "G", "ɪ": "IH", "ɪɹ": "IH R", "ɪə": "IH R", "ɫ": "L", "ɬ": "L", "ɲ": "N Y", "ɹ": "R", "ɾ": "D",
    "ʃ": "SH", "ʊ": "UH", "ʊɹ": "UH R", "ʊə": "UH R", "ʌ": "AH", "ʍ": "W", "ʒ": "ZH", "ʔ": "T", "θ": "TH", "ᵻ": "IH", "n̩": "AH N",
    "l̩": "AH L", "m̩": "AH M", "aɪə": "AY ER", "aɪɚ": "AY ER", "aʊə": "AW ER", "aʊɚ": "AW ER", "ɔɪə": "OY ER", "ɔɪɚ": "OY ER",
    "eɪə": "EY ER", PAUSE: PUNCTUATION,
}  # fmt: skip
"""espeak-ng's phones of English -> ARPAbet without stress"""


def _arpabet() -> list[str]:
    vowels = [v + digit for v in _VOWELS for digit in ("", "0", "1", "2")]
    return sorted([*vowels, *_CONSONANTS])


def symbols() -> list[str]:
    """The 360 symbols by index. Entry 0 is padding; ARPAbet, pinyin and silences begin with "@"."""
    pinyin = [*_INITIALS, *(final + tone for final in _FINALS for tone in "12345"), "rr"]
    spoken = [f"@{s}" for s in (*_arpabet(), *pinyin, *_SILENCES)]
    return ["_", "-", *"!'(),.:;? ", *ascii_uppercase, *ascii_lowercase, *spoken]


def arpabet(symbol: str) -> tuple[str, ...]:
    """A phone of espeak-ng's English -> ARPAbet: "ˈaɪ" -> ("AY1",). What is ARPAbet already stays so.

    Of several vowels the first carries the stress. DataError for what English does not have.
    """
    if symbol in _WRITTEN:
        return (symbol,)
    bare, stress = split_stress(symbol)
    if bare not in _IPA:
        raise DataError(
            f"phone {symbol!r} is none of English: this model speaks ARPAbet; give English text (language=en-us) or ARPAbet phones"
        )
    digits = iter((stress, 0, 0))
    return tuple(f"{part}{next(digits)}" if part in _VOWELS else part for part in _IPA[bare].split())


_WRITTEN = frozenset([*_arpabet(), *_SILENCES])


class ArpabetTable:
    """Phones -> rows of a released embedding. Nothing is fitted."""

    def __init__(self) -> None:
        self.rows = {s.removeprefix("@"): i for i, s in enumerate(symbols()) if s.startswith("@")}
        self.size = len(symbols()) + 1
        """rows of the embedding: the authors add one that nothing uses"""

    def fit(self, phones: Iterable[str]) -> None:
        """What is not English is better refused here than in the middle of a run."""
        for phone in set(phones):
            arpabet(phone)

    def indices(self, phone: str) -> list[int]:
        """One or several rows."""
        return [self.rows[name] for name in arpabet(phone)]

    def state(self) -> list[str]:
        return []

    def restore(self, state: list[str]) -> None: ...
