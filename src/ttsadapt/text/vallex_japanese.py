"""Japanese for VALL-E X: Open JTalk's phones and accents, then IPA with arrows where the pitch rises or falls."""

import re
from itertools import pairwise
from typing import NamedTuple

import pyopenjtalk
from unidecode import unidecode

_RUN = re.compile(r"[A-Za-z\d\u3005\u3040-\u30ff\u4e00-\u9fff\uff11-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d]+")
_LABEL = re.compile(r"-(?P<phone>[^+]*)\+.*?/A:(?P<a1>-?[0-9]+|xx)\+(?P<a2>[0-9]+|xx)\+(?P<a3>[0-9]+|xx)/")
"""a full-context label: the phone, its distance from the accent, its mora counted from both ends of the accent phrase"""
PAUSES = ("sil", "pau")
PHONES = {"ch": "ʧ", "sh": "ʃ", "cl": "Q"}
SOUNDS = (
    ("u", "ɯ"), ("ʧ", "tʃ"), ("j", "dʑ"), ("y", "j"), ("ni", "n^i"), ("nj", "n^"), ("hi", "çi"), ("hj", "ç"), ("f", "ɸ"), ("I", "i*"),
    ("U", "ɯ*"), ("r", "ɾ"),
)  # fmt: skip
"""romaji -> IPA, one after the other; "*" marks a voiceless vowel"""
DOUBLED = (("kg", r"k#\1"), ("tdjʧ", r"t#\1"), ("sʃ", r"s\1"), ("pb", r"p#\1"))
"""what the small tsu becomes before these"""
NASALS = (("pbm", r"m\1"), ("ʧʥj", r"n^\1"), ("tdn", r"n\1"), ("kg", r"ŋ\1"))
"""what the syllabic n becomes before these"""


class Label(NamedTuple):
    phone: str
    from_accent: int
    mora: int
    moras_left: int


def to_ipa(text: str) -> str:
    said = romaji(text.replace("％", "パーセント")).replace("...", "…")
    for rules, letter in ((DOUBLED, "Q"), (NASALS, "N")):
        for following, becomes in rules:
            said = re.sub(rf"{letter}([↑↓]*[{following}])", becomes, said)
    for sound, symbol in SOUNDS:
        said = said.replace(sound, symbol)
    return said


def romaji(text: str) -> str:
    """Phones with arrows, runs of words and accent phrases apart by spaces; marks between runs as ASCII."""
    said, end = "", 0
    for run in _RUN.finditer(text):
        said += _marks(text[end : run.start()])
        said += " " * bool(said) + accented([label(line) for line in pyopenjtalk.extract_fullcontext(run[0])])
        end = run.end()
    return said + _marks(text[end:])


def _marks(text: str) -> str:
    return unidecode(text).replace(" ", "")


def accented(labels: list[Label]) -> str:
    """Phones of one run; a space ends an accent phrase, arrows stand after the mora at which the pitch changes."""
    said = ""
    for now, following in pairwise([*labels, Label("sil", 0, -1, 0)]):
        if now.phone in PAUSES:
            continue
        after = -1 if following.phone in PAUSES else following.mora
        said += PHONES.get(now.phone, now.phone)
        if now.moras_left == 1 and after == 1:
            said += " "
        elif now.from_accent == 0 and after == now.mora + 1:
            said += "↓"
        elif now.mora == 1 and after == 2:
            said += "↑"
    return said


def label(line: str) -> Label:
    found = _LABEL.search(line)
    if found is None:
        raise ValueError(f"not a full-context label: {line!r}")
    numbers = (0 if value == "xx" else int(value) for value in found.group("a1", "a2", "a3"))
    return Label(found["phone"], *numbers)
