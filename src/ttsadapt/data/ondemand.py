"""Features of a large set, made when they are first asked for and kept: training starts before all of them are there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttsadapt.backbones.base import Batch, Frontend
from ttsadapt.bars import Bar
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError, TooLong
from ttsadapt.files import digest, read_json, write_json

MANY = 4000
"""utterances of a set above which its features are made on demand"""
_PROBED = 16


class OnDemand(FeatureSet):
    """A file for each utterance, below `folder`. Several processes may fill it at once.

    Utterances are grouped by their durations, times the frames per second of some of them, so that the groups depend on nothing that
    happens to be there already; what a step counts are the exact lengths of those that it draws.
    """

    def __init__(self, folder: Path, frontend: Frontend, utterances: Sequence[Utterance], origin: int) -> None:
        self.folder, self.frontend, self.origin = folder, frontend, origin
        self.utterances = {u.id: u for u in utterances}
        self.ids = list(self.utterances)
        self._known: dict[str, dict[str, int]] = {}
        self._too_long: set[str] = set()
        self.lengths = _Lengths(self)

    def __getstate__(self) -> dict:
        return self.__dict__

    @cached_property
    def frames(self) -> Mapping[str, int]:
        rate = self._rate()
        return {i: max(round(self.utterances[i].duration * rate), 1) for i in self.ids}

    def __getitem__(self, key: str | int) -> dict[str, Tensor]:  # type: ignore[override]
        """Raises TooLong for one that the model does not take."""
        utterance = self.ids[key] if isinstance(key, int) else key
        if utterance not in self.utterances:
            raise DataError(f"{utterance!r} is not in {self.folder}")
        try:
            with safe_open(self._place(utterance), framework="pt") as file:
                self._known[utterance] = _lengths(file.metadata())
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (FileNotFoundError, SafetensorError, ValueError, TypeError):  # not there, or cut short by a power failure
            return self._made(utterance)

    def exact(self, utterance: str) -> dict[str, int]:
        """Supervised positions by unit."""
        if utterance not in self._known:
            try:
                with safe_open(self._place(utterance), framework="pt") as file:
                    self._known[utterance] = _lengths(file.metadata())
            except (FileNotFoundError, SafetensorError, ValueError, TypeError):
                self._made(utterance)
        return self._known[utterance]

    def usable(self, utterance: str) -> bool:
        if utterance not in self._too_long:
            try:
                self.exact(utterance)
            except TooLong:
                if not self._too_long:
                    Bar.write(f"{utterance}: longer than the model takes; such utterances are left out")
                self._too_long.add(utterance)
        return utterance not in self._too_long

    def fixed(self, frames: int) -> Sequence[Batch]:
        return _Fixed(self, [group for group in self.groups(frames) if group])

    def _made(self, utterance: str) -> dict[str, Tensor]:
        features = {n: v.clone(memory_format=torch.contiguous_format) for n, v in self.frontend(self.utterances[utterance]).items()}
        self._known[utterance] = self.frontend.lengths(features)
        place = self._place(utterance)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:  # no waiting for the disk, unlike `files.replacing`: it can be made again
            save_file(features, temporary, {name: str(n) for name, n in self._known[utterance].items()})
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
        return features

    def _place(self, utterance: str) -> Path:
        name = digest(utterance, 24)
        return self.folder / name[:2] / f"{name}.safetensors"

    def _rate(self) -> float:
        """Frames per second, over utterances spread evenly; written down, so that one more would not change the groups."""
        known = self.folder / f"rate-{digest(self.ids)}.json"
        if not known.is_file():
            frames, seconds = 0, 0.0
            for i in self.ids[:: max(len(self.ids) // _PROBED, 1)]:
                if self.usable(i):
                    frames, seconds = frames + self.exact(i)["frames"], seconds + self.utterances[i].duration
            if not seconds:
                raise DataError(f"{self.folder.name}: no utterance of {_PROBED} can be used: all are too long for the model")
            write_json(known, frames / seconds)
        return read_json(known)


class _Lengths(Mapping[str, dict[str, int]]):
    """As `FeatureSet.lengths`; asking for one makes its features."""

    def __init__(self, owner: OnDemand) -> None:
        self.owner = owner

    def __getitem__(self, utterance: str) -> dict[str, int]:
        return self.owner.exact(utterance)

    def __iter__(self) -> Iterator[str]:
        return iter(self.owner.ids)

    def __len__(self) -> int:
        return len(self.owner.ids)


class _Fixed(Sequence[Batch]):
    """Batches that are put together when they are asked for, each with the same random numbers every time."""

    def __init__(self, owner: OnDemand, groups: list[list[str]]) -> None:
        self.owner, self.groups = owner, groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Batch:  # type: ignore[override]
        if not (ids := [i for i in self.groups[number] if self.owner.usable(i)]):
            return self[(number + 1) % len(self)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return self.owner.collate(ids)


def _lengths(metadata: Mapping[str, str]) -> dict[str, int]:
    return {name: int(n) for name, n in metadata.items()}
