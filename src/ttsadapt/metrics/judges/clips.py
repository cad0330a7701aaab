"""The recordings that judges learn from and are examined on, trimmed, at one rate and level, some of them also vocoded.

Without the vocoded copies a judge hears the vocoder before it hears the model: resynthesised recordings would score worse
than recordings for no fault of the speech.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttsadapt.artifacts import Artifact
from ttsadapt.bars import Bar
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data import manifest
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.metrics.signal import RATE, levelled, recording, speech
from ttsadapt.metrics.subset import subset
from ttsadapt.reproducible import reproducible

REVISION = 1
"""raise it when `build` would write something else"""
LEARNT = ("source", "target", "unseen")
"""sets whose train split judges learn from, and on whose test split they are examined"""
_SHORTEST = 0.2


@dataclass(frozen=True)
class Clip:
    """One recording as a judge hears it."""

    utterance: Utterance
    audio: Tensor
    """(samples,) at RATE, without leading and trailing silence"""
    start: float
    """seconds cut off at its beginning"""
    vocoded: bool
    group: str
    """the set it comes from"""


class Clips(Artifact):
    """`clips.safetensors` (16-bit samples by key) and `clips.json` (where each came from) of one corpus."""

    def __init__(self, corpus: Path, cache: Path, recordings: int = 1600, vocoded: int = 400, examined: int = 56) -> None:
        """At most `recordings` of the train splits, `vocoded` of them also through Griffin-Lim; `examined` held-out ones a set."""
        self.corpus, self.recordings, self.vocoded, self.examined = Path(corpus), recordings, vocoded, examined
        settings = {"corpus": self.corpus.name, "take": [recordings, vocoded, examined], "revision": REVISION}
        self.digest = digest(settings)
        self.folder = Path(cache) / "judges" / f"clips-{self.digest}"

    def build(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        starts: dict[str, float] = {}
        with reproducible():
            vocoder = GriffinLim(MelSpectrogram(RATE), iterations=16, updates=4)
            for key, utterance, copy in Bar(self._plan(), "recordings for the judges", unit="clip", leave=False):
                audio = recording(utterance.audio)
                first, end = speech(audio)
                audio = levelled(audio[first:end])
                if len(audio) < _SHORTEST * RATE:
                    continue
                starts[key] = first / RATE
                tensors[f"plain/{key}"] = _packed(audio)
                if copy:
                    tensors[f"vocoded/{key}"] = _packed(levelled(vocoder(vocoder.mel(audio))))
        if not tensors:
            what = "drop per, speaker and emotion from metric=[...]"
            raise DataError(f"{self.corpus}: no train split holds speech for a judge to learn from: {what}")
        save_file(tensors, folder / "clips.safetensors")
        write_json(folder / "clips.json", starts)

    def train(self) -> list[Clip]:
        return list(self._read("train"))

    def held_out(self) -> list[Clip]:
        """Of the test splits: what a judge's own error is measured on."""
        return list(self._read("test"))

    def references(self) -> list[Clip]:
        """Of the valid splits: real clips of a voice that the judge did not learn from."""
        return list(self._read("valid"))

    def _plan(self) -> list[tuple[str, Utterance, bool]]:
        """(key, utterance, whether it is also vocoded)"""
        learnt = [(name, u) for name in self._splits("train") for u in manifest.read(self.corpus, name)]
        learnt = subset(learnt, self.recordings)
        copied = {(name, u.id) for name, u in subset(learnt, self.vocoded)}
        plan = [(f"{name}/{u.id}", u, (name, u.id) in copied) for name, u in learnt]
        for split in ("valid", "test"):
            for name in self._splits(split):
                plan += [(f"{name}/{u.id}", u, split == "test") for u in subset(manifest.read(self.corpus, name), self.examined)]
        return plan

    def _splits(self, split: str) -> list[str]:
        there = manifest.names(self.corpus)
        return [f"{group}.{split}" for group in LEARNT if f"{group}.{split}" in there]

    def _read(self, split: str) -> Iterator[Clip]:
        starts = read_json(self.folder / "clips.json")
        with safe_open(self.folder / "clips.safetensors", framework="pt") as file:
            stored = set(file.keys())
            for name in self._splits(split):
                for utterance in manifest.read(self.corpus, name):
                    for kind in ("plain", "vocoded"):
                        key = f"{name}/{utterance.id}"
                        if f"{kind}/{key}" in stored:
                            audio = file.get_tensor(f"{kind}/{key}").float() / 32767
                            yield Clip(utterance, audio, starts[key], kind == "vocoded", name.partition(".")[0])


def _packed(audio: Tensor) -> Tensor:
    return (audio.clamp(-1, 1) * 32767).round().to(torch.int16)
