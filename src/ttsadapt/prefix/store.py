"""Where the states of frozen blocks are kept: in memory for one run, or on disk for all that share them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttsadapt.errors import CheckpointError
from ttsadapt.files import digest, replacing

Entry = dict[str, Tensor]
"""of one utterance, by name; CPU tensors of any shapes"""
Compute = Callable[[str], Entry]


class Store(ABC):
    """Entries by the key of their utterance."""

    place: str
    """what a user reads of where they are"""

    @abstractmethod
    def fill(self, keys: Sequence[str], compute: Compute, identity: Callable[[], list[str]]) -> None:
        """Make the entries of `keys` and keep them. `identity` gives everything that they depend on."""

    @abstractmethod
    def __contains__(self, key: str) -> bool: ...

    @abstractmethod
    def __getitem__(self, key: str) -> Entry: ...


class Memory(Store):
    """Gone with the process: computed again when a run is resumed, to the same bits."""

    place = "in memory"

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def fill(self, keys: Sequence[str], compute: Compute, identity: Callable[[], list[str]]) -> None:
        self._entries = {key: compute(key) for key in keys}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]


class Disk(Store):
    """Memory-mapped files of some utterances each, written whole or not at all: what an attempt finished, the next one finds.

    Runs with the same base, data and frozen blocks share them; of several processes one fills, the others wait.
    """

    place = "on disk"

    def __init__(self, folder: str, utterances: int = 64) -> None:
        """`folder`: of all caches. `utterances` of a file."""
        self.root, self.utterances = Path(folder), utterances
        self._places: dict[str, tuple[safe_open, list[str]]] = {}

    def fill(self, keys: Sequence[str], compute: Compute, identity: Callable[[], list[str]]) -> None:
        folder = self.root / digest([list(keys), self.utterances, identity()], 20)
        folder.mkdir(parents=True, exist_ok=True)
        shards = [keys[n : n + self.utterances] for n in range(0, len(keys), self.utterances)]
        with FileLock(folder / ".lock"):
            for number, shard in enumerate(shards):
                path = folder / f"{number:05d}.safetensors"
                if not path.is_file():
                    with replacing(path) as temporary:
                        save_file({f"{key}//{name}": t for key in shard for name, t in compute(key).items()}, temporary)
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is no whole file of a prefix cache: delete it and run again") from error
        for full in file.keys():  # noqa: SIM118 (not a mapping)
            key, _, name = full.rpartition("//")
            self._places.setdefault(key, (file, []))[1].append(name)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Entry:
        file, names = self._places[key]
        return {name: file.get_tensor(f"{key}//{name}") for name in names}


def size(entry: Entry) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in entry.values())


def packed(states: Tensor, half: bool) -> Tensor:
    """As they are kept: on the CPU, in 16 bits where asked for."""
    kept = states.detach().to("cpu", torch.float16 if half else states.dtype)
    if half and not kept.isfinite().all():
        raise CheckpointError("a state of the frozen blocks does not fit into 16 bits: prefix.half=false")
    return kept.clone(memory_format=torch.contiguous_format)
