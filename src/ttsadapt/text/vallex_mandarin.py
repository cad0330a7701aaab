"""Mandarin for VALL-E X: numbers in words, words by `jieba`, bopomofo by `pypinyin`, then IPA with arrows for tones."""

import logging
import re

import cn2an
import jieba
from pypinyin import BOPOMOFO, lazy_pinyin

jieba.setLogLevel(logging.WARNING)

TONES = {"ˉ": "→", "ˊ": "↑", "ˇ": "↓↑", "ˋ": "↓", "˙": ""}
MARKS = {"，": ",", "。": ".", "！": "!", "？": "?", "—": "-"}
INITIALS = {
    "ㄅ": "p⁼", "ㄆ": "pʰ", "ㄇ": "m", "ㄈ": "f", "ㄉ": "t⁼", "ㄊ": "tʰ", "ㄋ": "n", "ㄌ": "l", "ㄍ": "k⁼", "ㄎ": "kʰ", "ㄏ": "x",
    "ㄐ": "tʃ⁼", "ㄑ": "tʃʰ", "ㄒ": "ʃ", "ㄓ": "ts`⁼", "ㄔ": "ts`ʰ", "ㄕ": "s`", "ㄖ": "ɹ`", "ㄗ": "ts⁼", "ㄘ": "tsʰ", "ㄙ": "s",
}  # fmt: skip
FINALS = {
    "ㄚ": "a", "ㄛ": "o", "ㄜ": "ə", "ㄝ": "ɛ", "ㄞ": "aɪ", "ㄟ": "eɪ", "ㄠ": "ɑʊ", "ㄡ": "oʊ", "ㄢ": "an", "ㄣ": "ən", "ㄤ": "ɑŋ",
    "ㄥ": "əŋ", "ㄦ": "əɻ", "ㄧ": "i", "ㄨ": "u", "ㄩ": "ɥ",
    "ㄧㄢ": "jɛn", "ㄩㄢ": "ɥæn", "ㄧㄣ": "in", "ㄩㄣ": "ɥn", "ㄧㄥ": "iŋ", "ㄨㄥ": "ʊŋ", "ㄩㄥ": "jʊŋ",
}  # fmt: skip
LABIALS = {f"{initial}ㄛ": f"{INITIALS[initial]}wo" for initial in "ㄅㄆㄇㄈ"}
LETTERS = {
    "a": "ㄟˉ", "b": "ㄅㄧˋ", "c": "ㄙㄧˉ", "d": "ㄉㄧˋ", "e": "ㄧˋ", "f": "ㄝˊㄈㄨˋ", "g": "ㄐㄧˋ", "h": "ㄝˇㄑㄩˋ", "i": "ㄞˋ",
    "j": "ㄐㄟˋ", "k": "ㄎㄟˋ", "l": "ㄝˊㄛˋ", "m": "ㄝˊㄇㄨˋ", "n": "ㄣˉ", "o": "ㄡˉ", "p": "ㄆㄧˉ", "q": "ㄎㄧㄡˉ", "r": "ㄚˋ",
    "s": "ㄝˊㄙˋ", "t": "ㄊㄧˋ", "u": "ㄧㄡˉ", "v": "ㄨㄧˉ", "w": "ㄉㄚˋㄅㄨˋㄌㄧㄡˋ", "x": "ㄝˉㄎㄨˋㄙˋ", "y": "ㄨㄞˋ", "z": "ㄗㄟˋ",
}  # fmt: skip
"""how Mandarin reads the Latin alphabet"""
_SOUNDS = LABIALS | INITIALS | FINALS | TONES | MARKS
_SOUND = re.compile("|".join(sorted(_SOUNDS, key=len, reverse=True)))
_HAN = re.compile("[\u4e00-\u9fff]")


def to_ipa(text: str) -> str:
    text = re.sub(r"\d+(?:\.?\d+)?", lambda m: cn2an.an2cn(m[0]), text)
    text = re.sub("[A-Za-z]", lambda m: LETTERS[m[0].lower()], bopomofo(text))
    said = _SOUND.sub(lambda m: _SOUNDS[m[0]], text)
    said = re.sub("i([aoe])", r"j\1", said)  # vowels before vowels are glides
    said = re.sub("u([aoəe])", r"w\1", said)
    # A sibilant without a vowel is syllabic.
    said = re.sub("([sɹ]`[⁼ʰ]?)([→↓↑ ]+|$)", r"\1ɹ`\2", said).replace("ɻ", "ɹ`")
    return re.sub("(s[⁼ʰ]?)([→↓↑ ]+|$)", r"\1ɹ\2", said)


def bopomofo(text: str) -> str:
    """Words apart by spaces; what is not Han stays, joined to what is before it. A syllable without a mark has the first tone."""
    said = ""
    for word in jieba.lcut(re.sub("[、；：]", "，", text), cut_all=False):
        if _HAN.search(word):
            syllables = (re.sub("([\u3105-\u3129])$", r"\1ˉ", s) for s in lazy_pinyin(word, BOPOMOFO))
            said += " " * bool(said) + "".join(syllables)
        else:
            said += word
    return said
