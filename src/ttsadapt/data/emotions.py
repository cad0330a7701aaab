"""One vocabulary for the emotions of all corpora; what a corpus itself says stays in `Utterance.label`."""

from collections.abc import Collection, Mapping

EMOTIONS = (
    "neutral",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgusted",
    "surprised",
    "calm",
    "amused",
    "sleepy",
    "excited",
    "bored",
    "contemptuous",
    "frustrated",
    "confused",
)
"""Ekman's six and neutral, named as the embedded corpus names them, then what single corpora have beyond these"""

_SAID = {
    "neutral": "neutral neutrality default narration 中立 neu",
    "happy": "happy happiness joy joyful freude 快乐 开心 hap",
    "sad": "sad sadness sorrow trauer 伤心",
    "angry": "angry anger wut ärger 生气 ang",
    "fearful": "fearful fear afraid scared anxious anxiety angst fea",
    "disgusted": "disgusted disgust ekel dis",
    "surprised": "surprised surprise pleasant_surprise pleasant_surprised 惊喜 惊讶 sur",
    "calm": "calm calmness relaxed",
    "amused": "amused amusement laughing",
    "sleepy": "sleepy sleepiness tired",
    "excited": "excited excitement exc",
    "bored": "bored boredom langeweile",
    "contemptuous": "contemptuous contempt",
    "frustrated": "frustrated frustration fru",
    "confused": "confused confusion",
}
COMMON = {word: emotion for emotion, words in _SAID.items() for word in words.split()}
"""words of corpora, in small letters -> the vocabulary; codes of a corpus ("W", "ps") are turned into its words where it is read"""


def common(label: str, own: Mapping[str, str]) -> str | None:
    """A corpus's word for an emotion -> the vocabulary's; "" is neutral, None: nobody has said what it is.

    `own` is the user's: it goes first, and its emotions need not be in the vocabulary.
    """
    plain = _plain(label)
    chosen = own.get(label) or {k.lower(): v for k, v in own.items()}.get(plain)
    return chosen or (COMMON.get(plain) if plain else "neutral")


def meant(name: str, known: Collection[str]) -> str:
    """For messages: which of `known` an emotion of another name is, where the table above tells, else "<one of these>"."""
    emotion = COMMON.get(_plain(name), "")
    return emotion if emotion in known else "<one of these>"


def _plain(label: str) -> str:
    return "_".join(label.lower().replace("-", " ").split())
