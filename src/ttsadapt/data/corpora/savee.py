"""SAVEE: four men, 15 sentences in each of seven emotions; AudioData/DC/a01.wav, or flat DC_a01.wav (Haq and Jackson 2010).

Its texts (of TIMIT) are not packed with the recordings: the user gives them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, silent, unknown
from ttsadapt.data.layouts.files import below, lines
from ttsadapt.errors import DataError

_EMOTIONS = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "n": "neutral", "sa": "sadness", "su": "surprise"}
_NAME = re.compile(r"(?:(?P<speaker>[A-Z]{2})_)?(?P<code>(?P<emotion>[a-z]{1,2})\d\d)")
_GIVE = "give transcripts_path=<file> with lines such as 'a01 <text>' or, for one speaker, 'DC_a01 <text>'"


class SAVEE(Layout):
    spoken = "en-gb"

    def __init__(self, transcripts_path: str | None = None, **common: Any) -> None:
        """`transcripts_path`: a file with a line for each sentence, `a01 text` for all speakers or `DC_a01 text` for one."""
        super().__init__(**common)
        self.transcripts_path = transcripts_path

    def inputs(self) -> list[Path]:
        return [*super().inputs(), *([self._table(self.transcripts_path)] if self.transcripts_path else [])]

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "transcripts_path"}  # its contents count

    def recordings(self) -> Iterator[Found | Rejected]:
        texts = self._texts()
        for file in below(self.root):
            match = _NAME.fullmatch(file.stem)
            speaker = match and (match["speaker"] or file.parent.name)
            if not match or not speaker or not re.fullmatch(r"[A-Z]{2}", speaker):
                yield unknown(file, "<speaker>/<emotion><number> such as DC/a01, or DC_a01")
            elif match["emotion"] not in _EMOTIONS:
                yield Rejected(str(file), "unknown code", f"emotion {match['emotion']!r} is none of {', '.join(_EMOTIONS)}")
            elif (name := f"{speaker}_{match['code']}") not in texts and match["code"] not in texts:
                yield silent(file, f"SAVEE comes without texts: {_GIVE}")
            else:
                yield self.one(file, texts.get(name) or texts[match["code"]], speaker, _EMOTIONS[match["emotion"]], id=name)

    def _texts(self) -> dict[str, str]:
        texts = {}
        for line, where in lines(self._table(self.transcripts_path)) if self.transcripts_path else ():
            name, *text = re.split(r"[\s|,]+", line.strip(), maxsplit=1)
            if not text or not _NAME.fullmatch(name := name.replace("/", "_").removesuffix(".wav")):
                raise DataError(f"{where}: no line of a sentence: {_GIVE}")
            texts[name] = text[0]
        return texts

    def _table(self, given: str) -> Path:
        if not (table := Path(given).expanduser()).is_file():
            raise DataError(f"transcripts_path={given}: there is no such file: {_GIVE}")
        return table
