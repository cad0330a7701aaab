"""LibriTTS and LibriTTS-R: audiobooks; <subset>/<speaker>/<chapter>/<id>.wav (Zen et al. 2019, Koizumi et al. 2023)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing, silent, unknown
from ttsadapt.data.layouts.files import below, decoded, holds, only, split_in
from ttsadapt.errors import DataError

_SUBSET = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
_NAME = re.compile(r"(?P<speaker>\d+)_\d+_\d+_\d+")
_TEXT = {True: ".normalized.txt", False: ".original.txt"}


class LibriTTS(Layout):
    def __init__(self, subsets: Sequence[str] | None = None, official: bool = False, normalized: bool = True, **common: Any) -> None:
        """`subsets` such as train-clean-100, None: all there are; `official`: dev is valid and test is test, where speakers are others.

        `normalized`: numbers and abbreviations written out, else the book's own text.
        """
        super().__init__(**common)
        self.subsets, self.official, self.normalized = subsets and list(subsets), official, normalized

    def recordings(self) -> Iterator[Found | Rejected]:
        for subset in self._subsets():
            files = below(subset)
            yield from (self._one(file, subset) for file in files)
            heard = {file.with_suffix("") for file in files}
            ending = _TEXT[self.normalized]
            for text in below(subset, (".txt",)):
                if text.name.endswith(ending) and (name := text.with_name(text.name.removesuffix(ending))) not in heard:
                    yield missing(text, f"there is no {name}.wav: extract {subset.name} again, or remove the text")

    def _subsets(self) -> list[Path]:
        root = self.root
        places = [p for p in (root, *sorted(root.iterdir())) if p.is_dir()]
        there = {sub.name: sub for place in reversed(places) for sub in place.iterdir() if sub.is_dir() and _SUBSET.fullmatch(sub.name)}
        if not there:
            root = only(root)
            raise DataError(f"{root} has no subset such as train-clean-100, {holds(root)}: extract at least one, or correct the path")
        if lacking := [name for name in self.subsets or () if name not in there]:
            raise DataError(f"subsets: {root} has no {lacking[0]}, it has {', '.join(sorted(there))}: extract it, or leave it out")
        return [there[name] for name in sorted(self.subsets or there)]

    def _one(self, file: Path, subset: Path) -> Found | Rejected:
        if not (match := _NAME.fullmatch(file.stem)):
            return unknown(file, "<speaker>_<chapter>_<paragraph>_<sentence>")
        text = file.with_suffix(_TEXT[self.normalized])
        if not text.is_file():
            return silent(file, f"there is no {text.name} beside it: extract {subset.name} again, or remove the recording")
        return self.one(file, decoded(text), match["speaker"], split=split_in(subset.name) if self.official else "")
