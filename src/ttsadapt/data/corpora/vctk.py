"""VCTK: 110 speakers of English accents, in the layouts of versions 0.92 (two microphones, flac) and 0.80 (Yamagishi et al. 2019)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing, silent, unknown
from ttsadapt.data.layouts.files import below, decoded, holds, rooted
from ttsadapt.errors import DataError

_NAME = re.compile(r"(?P<id>(?P<speaker>[ps]\d+)_\d+)(?:_mic(?P<mic>[12]))?")
_AUDIO = ("wav48_silence_trimmed", "wav48")
"""of 0.92, of 0.80"""


class VCTK(Layout):
    spoken = "en-gb"

    def __init__(self, mic: Literal[1, 2] = 1, **common: Any) -> None:
        """`mic`: which of the two microphones of 0.92; 0.80 has one. Speaker p280 has only the first."""
        super().__init__(**common)
        self.mic = mic

    def recordings(self) -> Iterator[Found | Rejected]:
        """p315 has no transcripts in either version: its recordings are rejected, one by one."""
        root = rooted(self.path, "txt")
        audio = next((root / name for name in _AUDIO if (root / name).is_dir()), None)
        if audio is None:
            raise DataError(f"{root} has no {' (0.92) and no '.join(_AUDIO)} (0.80), {holds(root)}: extract the whole archive of VCTK")
        texts = {file.stem: file for file in below(root / "txt", (".txt",))}
        mics: dict[str, dict[int, Path]] = {}
        for file in below(audio):
            if not (match := _NAME.fullmatch(file.stem)):
                yield unknown(file, "<speaker>_<number>, with _mic1 or _mic2 in 0.92")
            elif other := (known := mics.setdefault(match["id"], {})).get(mic := int(match["mic"] or self.mic)):
                yield Rejected(str(file), "duplicate id", f"{file.stem} is also at {other}: remove one of them")
            else:
                known[mic] = file
        yield from (self._one(name, files, texts.get(name), root) for name, files in mics.items())
        for name in sorted(texts.keys() - mics.keys()):
            yield missing(texts[name], f"there is no recording {name} below {audio}: extract the archive again, or remove the text")

    def _one(self, name: str, files: dict[int, Path], text: Path | None, root: Path) -> Found | Rejected:
        speaker = name.split("_")[0]
        if self.mic not in files:
            (other, file), *_ = files.items()
            return missing(file, f"it has no recording of microphone {self.mic}: give mic={other}, or leave {speaker} out")
        if text is None:
            return silent(files[self.mic], f"there is no {root / 'txt' / speaker / name}.txt: add it, or leave {speaker} out by keep")
        return self.one(files[self.mic], decoded(text, "cp1252"), speaker, id=name)
