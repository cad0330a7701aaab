"""Text as NeuTTS reads it: espeak-ng's IPA with stress and spaces between words, the text's punctuation left where it stood."""

import ctypes
import re
from functools import lru_cache

from ttsadapt.data.espeak import engine
from ttsadapt.errors import DataError

_MARK = r"""(?:[;:!?¡¿—…"«»“”(){}\[\]]|(?<!\d)[,.]|[,.](?!\d))"""  # a comma or point between digits belongs to the number
_MARKS = re.compile(rf"(\s*(?:{_MARK}\s*)+)")
_FLAG = re.compile(r"\([a-z-]+\)")
"""espeak-ng's note that a word is said in another language, such as "(fr)" """
_UTF8, _IPA = 1, 2


@lru_cache(maxsize=4096)
def phones_of(text: str, language: str) -> str:
    """ "Hello, you." -> "həlˈoʊ, juː.": what stands between the prompt's text marks.

    As phonemizer's espeak backend gives it with preserve_punctuation and with_stress, language flags removed, blanks made one.
    Raises UserError for an unknown language, DataError when nothing of the text can be spoken.
    """
    pieces = _MARKS.split(text.strip())  # words, marks, words ...
    said = [_say(piece, language) if i % 2 == 0 else piece for i, piece in enumerate(pieces)]
    if not any(said[::2]):
        raise DataError(f"nothing in {text!r} can be spoken ({language}): give a text with words")
    return " ".join("".join(said).split())


def _say(words: str, language: str) -> str:
    if not words.strip():
        return ""
    espeak = engine()
    espeak._select(language)
    transcribe = espeak._library.espeak_TextToPhonemes
    transcribe.argtypes, transcribe.restype = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int], ctypes.c_char_p
    rest, clauses = ctypes.c_char_p(words.encode()), []
    while rest.value is not None:  # one clause a call; it moves the pointer on
        clauses.append((transcribe(ctypes.byref(rest), _UTF8, _IPA) or b"").decode())
    return " ".join(_FLAG.sub("", " ".join(clauses)).split())
