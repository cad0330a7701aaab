"""LJSpeech 1.1: one voice reading books; wavs/LJ001-0001.wav and metadata.csv (Ito and Johnson 2017)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing, silent
from ttsadapt.data.layouts.files import below, lines, rooted


class LJSpeech(Layout):
    def __init__(self, normalized: bool = True, **common: Any) -> None:
        """`normalized`: numbers and abbreviations written out, as metadata.csv's third column has them."""
        super().__init__(**common)
        self.normalized = normalized

    def recordings(self) -> Iterator[Found | Rejected]:
        root = rooted(self.path, "metadata.csv", "wavs")
        files = {file.stem: file for file in below(root / "wavs")}
        named = set()
        for line, where in lines(root / "metadata.csv"):
            name, _, texts = line.partition("|")  # no quoting: a quotation mark in its text is only that
            written, _, spoken = texts.partition("|")
            named.add(name)
            yield self._row(
                files.get(name), root / "wavs" / f"{name}.wav", spoken if self.normalized and spoken.strip() else written, where
            )
        for name in sorted(files.keys() - named):
            yield silent(files[name], f"metadata.csv has no line {name}|...: add it, or remove the recording")

    def _row(self, file: Path | None, due: Path, text: str, where: str) -> Found | Rejected:
        if file is None:
            return missing(where, f"there is no {due}: extract the archive again, or remove the line")
        return self.one(file, text, "LJ", where=where)
