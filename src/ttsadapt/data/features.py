"""Features of a set of utterances, computed once, read from a memory-mapped file ever after."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttsadapt.artifacts import Artifact
from ttsadapt.backbones.base import Batch, Frontend, distinct
from ttsadapt.bars import Bar
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError, TooLong
from ttsadapt.files import read_json, write_json


class Features(Artifact):
    """`features.safetensors` ("<id>/<name>") and `lengths.json` ({id: {unit: n}}) of one set under one frontend."""

    def __init__(self, folder: Path, frontend: Frontend, utterances: Sequence[Utterance], title: str) -> None:
        self.folder, self.frontend, self.utterances, self.title = folder, frontend, utterances, title

    def build(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        lengths: dict[str, dict[str, int]] = {}
        dropped = 0
        for utterance in Bar(self.utterances, f"features of {self.title}", unit="utt", leave=False):
            try:
                features = self.frontend(utterance)
            except TooLong:  # never cut: a model that learns from cut utterances learns not to stop
                dropped += 1
                continue
            lengths[utterance.id] = self.frontend.lengths(features)
            tensors |= {f"{utterance.id}/{name}": value.clone(memory_format=torch.contiguous_format) for name, value in features.items()}
        if dropped:
            Bar.write(f"{self.title}: {dropped} of {len(self.utterances)} utterances are longer than the model takes and were left out")
        if not lengths:
            raise DataError(f"{self.title}: no utterance can be used ({dropped} are too long for the model)")
        save_file(tensors, folder / "features.safetensors")
        write_json(folder / "lengths.json", lengths)


class FeatureSet(Sequence[dict[str, Tensor]]):
    """The utterances of one set with their features; opens its file lazily, so it can be sent to worker processes."""

    def __init__(self, folder: Path, frontend: Frontend, utterances: Sequence[Utterance], origin: int) -> None:
        self.folder, self.frontend, self.origin = folder, frontend, origin
        self.lengths: Mapping[str, dict[str, int]] = read_json(folder / "lengths.json")
        self.utterances = {u.id: u for u in utterances if u.id in self.lengths}
        self.ids = list(self.utterances)
        self._file: safe_open | None = None
        self._names: dict[str, list[str]] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_names": {}}

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def frames(self) -> Mapping[str, int]:
        """What utterances are sorted and grouped by."""
        return {i: self.lengths[i]["frames"] for i in self.ids}

    def __getitem__(self, key: str | int) -> dict[str, Tensor]:  # type: ignore[override]
        utterance = self.ids[key] if isinstance(key, int) else key
        if self._file is None:
            self._file = safe_open(self.folder / "features.safetensors", framework="pt")
            for name in self._file.keys():  # noqa: SIM118 (not a mapping)
                self._names.setdefault(name.rpartition("/")[0], []).append(name)
        if utterance not in self._names:
            raise DataError(f"{utterance!r} is not in {self.folder}")
        return {n.rpartition("/")[2]: self._file.get_tensor(n) for n in self._names[utterance]}

    def key(self, utterance: str) -> str:
        """A name for these features of an utterance that no other ones have: under what is computed from them is kept."""
        return f"{self.folder.name}/{utterance}"

    def collate(self, ids: Sequence[str]) -> Batch:
        """A batch of these utterances with ids, origin and the totals of supervised positions by unit."""
        return collate(self.frontend, [(self, i) for i in ids])

    def batches(self, frames: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All utterances in batches of at most `frames` frames (padding counted), similar lengths together.

        With a generator the batches come in random order.
        """
        groups = self.groups(frames)
        order = torch.randperm(len(groups), generator=generator).tolist() if generator else range(len(groups))
        for k in order:
            if usable := [i for i in groups[k] if self.usable(i)]:
                yield self.collate(usable)

    def groups(self, frames: int) -> list[list[str]]:
        """All ids, shortest first, in groups of at most `frames` with their padding."""
        groups: list[list[str]] = [[]]
        for i in sorted(self.ids, key=lambda i: (self.frames[i], i)):
            if groups[-1] and (len(groups[-1]) + 1) * self.frames[i] > frames:
                groups.append([])
            groups[-1].append(i)
        return groups

    def usable(self, utterance: str) -> bool:
        """Not longer than the model takes."""
        return True

    def fixed(self, frames: int) -> Sequence[Batch]:
        """Batches of all of it that are the same every time: what is validated on."""
        return list(self.batches(frames))


def collate(frontend: Frontend, picked: Sequence[tuple[FeatureSet, str]]) -> Batch:
    batch = frontend.collate([source[i] for source, i in picked])
    batch["ids"] = [i for _, i in picked]
    batch |= distinct(batch["speaker"], [source.utterances[i].speaker for source, i in picked])
    batch["keys"] = [source.key(i) for source, i in picked]
    batch["origin"] = torch.tensor([source.origin for source, _ in picked])
    batch["totals"] = totals([(source.origin, source.lengths[i]) for source, i in picked])
    return batch


def totals(rows: Sequence[tuple[int, dict[str, int]]]) -> dict[str, list[int]]:
    """Supervised positions by unit and origin: {"frames": [of the target, of the source]}."""
    counts: dict[str, list[int]] = {}
    for origin, lengths in rows:
        for unit, n in lengths.items():
            counts.setdefault(unit, [0, 0])[origin] += n
    return counts
