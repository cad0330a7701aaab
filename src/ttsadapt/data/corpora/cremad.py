"""CREMA-D: 91 actors, 12 sentences, six emotions; AudioWAV/1001_DFA_ANG_XX.wav (Cao et al. 2014)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, unknown
from ttsadapt.data.layouts.files import below, rooted
from ttsadapt.data.layouts.files import table as read_table
from ttsadapt.errors import DataError

_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
_EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}  # one file has a single X
_NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]+)_(?P<emotion>[A-Z]+)_(?P<level>[A-Z]+)")
_CODES = {"sentence": _SENTENCES, "emotion": _EMOTIONS, "level": _LEVELS}
_TABLE = "VideoDemographics.csv"


class CREMAD(Layout):
    def __init__(
        self,
        sex: Literal["Female", "Male"] | None = None,
        levels: Sequence[Literal["low", "medium", "high", "unspecified"]] | None = None,
        **common: Any,
    ) -> None:
        """What of it is read; `sex` as VideoDemographics.csv has it, which must be there then; None: all."""
        super().__init__(**common)
        self.sex, self.levels = sex, list(levels or _LEVELS.values())

    def recordings(self) -> Iterator[Found | Rejected]:
        root = rooted(self.path, "AudioWAV")
        actors = _actors(root, self.sex) if self.sex else None
        for file in below(root / "AudioWAV"):
            if not (match := _NAME.fullmatch(file.stem)):
                yield unknown(file, "<actor>_<sentence>_<emotion>_<level> such as 1001_DFA_ANG_XX")
            elif strange := [name for name in _CODES if match[name] not in _CODES[name]]:
                yield Rejected(str(file), "unknown code", f"{strange[0]} {match[strange[0]]!r} is none of {', '.join(_CODES[strange[0]])}")
            elif _LEVELS[match["level"]] in self.levels and (actors is None or match["actor"] in actors):
                yield self.one(file, _SENTENCES[match["sentence"]], match["actor"], _EMOTIONS[match["emotion"]])


def _actors(root: Path, sex: str) -> set[str]:
    if not (table := root / _TABLE).is_file():
        raise DataError(f"sex={sex} needs {table}: put it there, or give sex=null")
    rows = read_table(table)
    if lacking := {"ActorID", "Sex"} - set(rows.fieldnames or ()):
        raise DataError(f"{table} has no column {min(lacking)}: put CREMA-D's own file there, or give sex=null")
    return {row["ActorID"] for row in rows if row["Sex"] == sex}
