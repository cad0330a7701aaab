"""Switches that trade time for memory, or the other way round; off unless asked for, and gone when training ends."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(module: LightningModule) -> Iterator[nn.Module]:
    """Every block of the backbone, once."""
    seen: set[int] = set()
    for group in module.backbone.blocks.values():  # type: ignore[union-attr, operator]
        for block in group.values():
            if id(block) not in seen:
                seen.add(id(block))
                yield block


class GradientCheckpointing(Callback):
    """Blocks keep their inputs only and are run again in the backward pass: memory of one block instead of all, a third more time."""

    def __init__(self) -> None:
        self._wrapped: list[nn.Module] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for block in blocks_of(pl_module):
            inner = block.forward

            def again(*args: Any, inner: Any = inner, **kwargs: Any) -> Any:
                return checkpoint(inner, *args, use_reentrant=False, **kwargs) if torch.is_grad_enabled() else inner(*args, **kwargs)

            block.forward = again  # type: ignore[method-assign]  # on this block alone; names of weights stay
            self._wrapped.append(block)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for block in self._wrapped:
            block.__dict__.pop("forward", None)
        self._wrapped = []


class Compiled(Callback):
    """Every block is compiled when it is first run: one graph for all lengths, and blocks alike share it."""

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for block in blocks_of(pl_module):
            block.compile(backend=self.backend, dynamic=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for block in blocks_of(pl_module):
            block._compiled_call_impl = None
