"""RAVDESS: 24 actors, two statements, eight emotions; Actor_01/03-01-06-01-02-01-01.wav (Livingstone and Russo 2018)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, unknown
from ttsadapt.data.layouts.files import below

_CHANNELS = {"01": "speech", "02": "song"}
_EMOTIONS = dict(
    zip(("01", "02", "03", "04", "05", "06", "07", "08"), ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"])
)
_INTENSITIES = {"01": "normal", "02": "strong"}
_STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_FIELDS = ("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor")
_CODES = {"channel": _CHANNELS, "emotion": _EMOTIONS, "intensity": _INTENSITIES, "statement": _STATEMENTS}


class RAVDESS(Layout):
    def __init__(
        self,
        channels: Sequence[Literal["speech", "song"]] = ("speech",),
        intensities: Sequence[Literal["normal", "strong"]] = ("normal", "strong"),
        **common: Any,
    ) -> None:
        """What of it is read: spoken or sung, of which intensity."""
        super().__init__(**common)
        self.channels, self.intensities = list(channels), list(intensities)

    def recordings(self) -> Iterator[Found | Rejected]:
        for file in below(self.root):
            said = dict(zip(_FIELDS, file.stem.split("-")))
            if len(said) < len(_FIELDS) or file.stem.count("-") != len(_FIELDS) - 1:
                yield unknown(file, "seven numbers such as 03-01-06-01-02-01-12")
            elif strange := [name for name in _CODES if said[name] not in _CODES[name]]:
                yield Rejected(str(file), "unknown code", f"{strange[0]} {said[strange[0]]!r} is none of {', '.join(_CODES[strange[0]])}")
            elif _CHANNELS[said["channel"]] in self.channels and _INTENSITIES[said["intensity"]] in self.intensities:
                yield self._one(file, said)

    def _one(self, file: Path, said: dict[str, str]) -> Found | Rejected:
        return self.one(file, _STATEMENTS[said["statement"]], f"Actor_{said['actor']}", _EMOTIONS[said["emotion"]])
