"""English IPA, as espeak-ng writes it, in the ARPAbet that GPT-SoVITS's English phones are (CMUdict's, with stress digits)."""

from collections.abc import Sequence

from ttsadapt.data.espeak import PAUSE
from ttsadapt.text.phones import split_stress

_VOWELS = {
    "ɑː": ["AA"], "ɒ": ["AA"], "a": ["AE"], "æ": ["AE"], "ʌ": ["AH"], "ə": ["AH"], "ɐ": ["AH"], "ɔ": ["AO"], "ɔː": ["AO"], "o": ["AO"],
    "aʊ": ["AW"], "aɪ": ["AY"], "ɛ": ["EH"], "e": ["EH"], "ɚ": ["ER"], "ɜː": ["ER"], "ɜ": ["ER"], "eɪ": ["EY"], "ɪ": ["IH"], "ᵻ": ["IH"],
    "i": ["IY"], "iː": ["IY"], "oʊ": ["OW"], "əʊ": ["OW"], "oː": ["AO"], "ɔɪ": ["OY"], "ʊ": ["UH"], "uː": ["UW"], "u": ["UW"],
    "aɪə": ["AY", "AH0"], "aɪɚ": ["AY", "ER0"], "iə": ["IY", "AH0"], "əl": ["AH", "L"], "n̩": ["AH", "N"], "ɑːɹ": ["AA", "R"],
    "ɔːɹ": ["AO", "R"], "oːɹ": ["AO", "R"], "ɛɹ": ["EH", "R"], "ɪɹ": ["IH", "R"], "ʊɹ": ["UH", "R"], "ɛː": ["EH"], "ʊə": ["UH", "AH0"],
}  # fmt: skip
_CONSONANTS = {
    "b": "B", "tʃ": "CH", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "h": "HH", "dʒ": "JH", "k": "K", "l": "L", "m": "M", "n": "N",
    "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH", "t": "T", "ɾ": "T", "ʔ": "T", "θ": "TH", "v": "V", "w": "W", "j": "Y",
    "z": "Z", "ʒ": "ZH",
}  # fmt: skip
_DIGITS = ("0", "1", "2")
"""CMUdict's mark of no, primary and secondary stress"""


def arpabet(phones: Sequence[str]) -> tuple[str, ...] | None:
    """IPA with pauses -> ARPAbet with a comma where speech pauses and a full stop at the end; None when a phone is not English."""
    made: list[str] = []
    for symbol in phones:
        bare, stress = split_stress(symbol)
        if symbol == PAUSE:
            made += [","] if made and made[-1] != "," else []
        elif bare in _VOWELS:
            first, *rest = _VOWELS[bare]
            made += [first + _DIGITS[stress], *rest]
        elif bare in _CONSONANTS:
            made.append(_CONSONANTS[bare])
        else:
            return None
    while made and made[-1] == ",":
        made.pop()
    return (*made, ".")
