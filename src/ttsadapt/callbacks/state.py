"""Random generators in the checkpoint, so that a resumed run draws what the unbroken one would have drawn."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader


class RandomState(Callback):
    """Generators of torch, CUDA, numpy and Python, of every rank; restored at the last moment before the first batch."""

    def __init__(self) -> None:
        self._ranks: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Called on all ranks; tensors and plain containers only, so it loads under weights_only=True."""
        own = capture()
        if not (dist.is_available() and dist.is_initialized()):
            return {"ranks": [own]}
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, own)
        return {"ranks": gathered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ranks = state["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _own_generators(trainer)
        if not self._ranks:
            return
        if len(self._ranks) == trainer.world_size:
            restore(self._ranks[trainer.global_rank])
        else:
            rank_zero_warn(
                f"the checkpoint was written by {len(self._ranks)} processes and goes on with {trainer.world_size}: "
                "dropout masks will differ from an unbroken run's"
            )
        self._ranks = []


def _own_generators(trainer: Trainer) -> None:
    """A loader draws a seed for its workers whenever an iterator is made, from torch's generator unless it has its own.

    A run resumed at the end of an epoch makes other iterators than the unbroken one, which would shift all that is drawn later.
    """
    for loader in tree_leaves([trainer.train_dataloader, trainer.val_dataloaders]):
        if isinstance(loader, DataLoader) and loader.generator is None:
            loader.generator = torch.Generator().manual_seed(0)


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn inside, the generators of this process go on afterwards as if nothing had been."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


def capture() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),  # type: ignore[attr-defined]  # no dict
        "python": (version, torch.tensor(internal, dtype=torch.int64), gauss),
    }


def restore(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
