"""ESD, the Emotional Speech Database: 10 Mandarin and 10 English speakers, 350 sentences in 5 emotions (Zhou et al. 2022).

<speaker>/<Emotion>/<id>.wav, or with a folder train, evaluation or test between; <speaker>/<speaker>.txt has a line for each.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttsadapt.data.emotions import common
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing, silent, unknown
from ttsadapt.data.layouts.files import below, holds, lines, only, split_in
from ttsadapt.errors import DataError

_NAME = re.compile(r"\d{4}_\d{6}")
_MANDARIN = range(1, 11)
"""numbers of its speakers; those after it speak English"""


class ESD(Layout):
    def __init__(self, official: bool = False, **common: Any) -> None:
        """`official`: the splits are those of the folders train, evaluation and test, which the flat layout does not have."""
        super().__init__(**common)
        self.official = official

    def recordings(self) -> Iterator[Found | Rejected]:
        for place in self._speakers():
            number = int(place.name)
            language, fallback = ("cmn", "gb18030") if number in _MANDARIN else ("en-us", "cp1252")
            texts: dict[str, tuple[str, str]] = {}
            for line, where in lines(table, fallback) if (table := place / f"{place.name}.txt").is_file() else ():
                name, text = _row(line)
                if name in texts:
                    yield Rejected(where, "duplicate id", f"{name} is also at {texts[name][1]}: remove one of the lines")
                texts.setdefault(name, (text, where))
            heard = set()
            for file in below(place):
                heard.add(file.stem)
                yield self._one(file, place, texts, language)
            for name in sorted(texts.keys() - heard):
                yield missing(texts[name][1], f"there is no {name}.wav below {place}: extract the archive again, or remove the line")

    def _speakers(self) -> list[Path]:
        root = self.root
        for place in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
            if speakers := sorted(p for p in place.iterdir() if p.is_dir() and re.fullmatch(r"\d{4}", p.name)):
                return speakers
        root = only(root)
        raise DataError(f"{root} has no speaker's folder 0001 to 0020, {holds(root)}: extract the whole archive, or correct the path")

    def _one(self, file: Path, place: Path, texts: dict[str, tuple[str, str]], language: str) -> Found | Rejected:
        emotion, *between = file.relative_to(place).parts[:-1] or ("",)
        if not _NAME.fullmatch(file.stem) or not emotion:
            return unknown(file, f"{place.name}/<Emotion>/{place.name}_<six digits>")
        split = split_in(*between)
        if self.official and not split:
            return Rejected(str(file), "no split", "it is in no folder train, evaluation or test: give official=false")
        if file.stem not in texts:
            return silent(file, f"{place.name}.txt has no line {file.stem}: add it, or remove the recording")
        return self.one(file, texts[file.stem][0], place.name, emotion, split=split if self.official else "", language=language)


def _row(line: str) -> tuple[str, str]:
    """(id, text); some files have spaces where others have tabs, and the emotion is the last word."""
    name, *rest = line.split("\t") if "\t" in line else line.split(maxsplit=1)
    words = rest[0].split() if rest else []
    if "\t" not in line and words and common(words[-1], {}):
        words.pop()
    return name.strip(), " ".join(words)
