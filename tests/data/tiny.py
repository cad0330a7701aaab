"""A corpus at its smallest, and what may be wrong with it."""

import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

AUDIO = object()
"""stands for a recording of its own"""


@dataclass
class Trouble:
    """What is wrong with a corpus, and what is told of it; None instead of a file removes it."""

    changes: dict
    kind: str
    """ "" for what makes the whole unusable"""
    words: str
    lost: tuple = ()
    """ids that are not found any more"""


@dataclass
class Tiny:
    files: dict
    """{path: AUDIO, text or bytes}"""
    expected: dict
    """{id: (text, speaker, emotion, label, language, split)}"""
    settings: dict = field(default_factory=dict)
    """"{path}" in them is the folder's"""
    troubles: dict = field(default_factory=dict)

    def build(self, root, changes=None):
        for name, content in (self.files | (changes or {})).items():
            if content is not None:
                put(Path(root) / name, content, name)
        return Path(root)


def put(path, content, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is AUDIO:
        content = tone(sum(map(ord, seed)), path.suffix[1:])
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@lru_cache(maxsize=512)
def tone(seed, form="wav"):
    """0.5 s at 16 kHz as the bytes of a file."""
    buffer, hz = io.BytesIO(), 150 + seed % 701
    samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(8000) / 16000) + 0.001 * np.random.default_rng(seed).standard_normal(8000)
    soundfile.write(buffer, samples, 16000, format=form.upper())
    return buffer.getvalue()
