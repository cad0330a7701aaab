"""EmoV-DB: four speakers, CMU Arctic's sentences in five emotions, without texts (Adigwe et al. 2018).

As OpenSLR packs it (bea_Amused/amused_1-15_0001.wav) and sorted (bea/Amused/...).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, silent, unknown
from ttsadapt.data.layouts.files import below, lines
from ttsadapt.errors import DataError

_NAME = re.compile(r"(?P<emotion>[A-Za-z]+)_(?:\d+-\d+_)?(?P<number>\d{4})")
_SPEAKER = re.compile(r"(?P<speaker>bea|jenie|josh|sam)(_.*)?", re.IGNORECASE)
_PROMPT = re.compile(r'\(\s*arctic_a(?P<number>\d{4})\s+"(?P<text>.*)"\s*\)')
_TEXTS = "cmuarctic.data"


class EmoVDB(Layout):
    def __init__(self, transcripts_path: str | None = None, **common: Any) -> None:
        """`transcripts_path`: CMU Arctic's cmuarctic.data, None: the one in the folder or beside it."""
        super().__init__(**common)
        self.transcripts_path = transcripts_path

    def inputs(self) -> list[Path]:
        return [*super().inputs(), self._table()]

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "transcripts_path"}  # its contents count

    def recordings(self) -> Iterator[Found | Rejected]:
        root = self.root
        table = self._table()
        texts = {m["number"]: m["text"].replace('\\"', '"') for line, _ in lines(table) if (m := _PROMPT.match(line.strip()))}
        if not texts:
            raise DataError(f'{table} has no line such as ( arctic_a0001 "..." ): give CMU Arctic\'s {_TEXTS}')
        for file in below(root):
            name = _NAME.fullmatch(file.stem)
            owner = next((m for part in reversed(file.relative_to(root.parent).parts[:-1]) if (m := _SPEAKER.fullmatch(part))), None)
            if not name or not owner:
                yield unknown(
                    file, "<emotion>_<range>_<sentence> in a folder <speaker>_<Emotion> or <speaker>/<Emotion> of bea, jenie, josh, sam"
                )
            elif name["number"] not in texts:
                yield silent(file, f"{table} has no arctic_a{name['number']}: correct the name, or remove the recording")
            else:
                speaker = owner["speaker"].lower()
                yield self.one(file, texts[name["number"]], speaker, name["emotion"].lower(), id=f"{speaker}_{file.stem}")

    def _table(self) -> Path:
        root = self.root
        given = Path(self.transcripts_path).expanduser() if self.transcripts_path else None
        found = next((p for p in ([given] if given else [root / _TEXTS, root.parent / _TEXTS]) if p.is_file()), None)
        if found is None:
            place = given or root / _TEXTS
            raise DataError(f"no file {place}: EmoV-DB's texts are CMU Arctic's, put http://www.festvox.org/cmu_arctic/{_TEXTS} there")
        return found
