"""Watching the first blocks of a model, and standing in for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.heads import Heads
from ttsadapt.learner import Learner


@dataclass(frozen=True)
class Prefix:
    """The first blocks of a group, below which and in which nothing trains."""

    group: str
    sizes: tuple[int, ...]
    """for each block: how long the tuple is that it gives; 0: it gives a bare tensor"""

    def of(self, backbone: Backbone) -> list[nn.Module]:
        return list(backbone.blocks[self.group].values())[: len(self.sizes)]


@dataclass
class Seen:
    """What went into a prefix and what came out of it, for one batch."""

    inputs: Tensor
    """(B, T, C)"""
    states: Tensor
    """(B, T, C)"""


def predicted(learner: Learner, batch: Batch) -> Heads:
    """What the model says to a batch that its strategies have seen: some make weights of it."""
    for strategy in learner.strategies.values():
        strategy.condition(batch)  # type: ignore[operator]
    return learner.backbone(batch)


def frozen_prefixes(learner: Learner, batch: Batch) -> tuple[list[Prefix], dict[str, str]]:
    """The frozen first blocks of each group, as autograd sees them, and why the other groups have none.

    Whatever trains below a block (an adapter, a soft prompt, an embedding, another group) shows in that its output needs a gradient.
    """
    backbone = learner.backbone
    calls: list[tuple[str, str, Any]] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, output, at=(group, name): calls.append((*at, output)))
        for group, blocks in backbone.blocks.items()
        for name, block in blocks.items()
    ]
    try:
        with torch.enable_grad():
            predicted(learner, batch)
    finally:
        for handle in handles:
            handle.remove()
    found, without = [], {}
    for group, blocks in backbone.blocks.items():
        outputs = [output for g, _, output in calls if g == group]
        count = next((i for i, output in enumerate(outputs) if stream(output).requires_grad), len(outputs))
        if [name for g, name, _ in calls if g == group] != list(blocks):
            without[group] = "its blocks do not run once each in their order"
        elif any(not _plain(output) for output in outputs[:count]):
            without[group] = "its blocks hand on more than one tensor"
        elif not count:
            without[group] = "something trains in its first block or below"
        else:
            found.append(Prefix(group, tuple(len(o) if isinstance(o, tuple) else 0 for o in outputs[:count])))
    return found, without


class _Enough(Exception):
    """All that was to be seen has been seen."""


def record(learner: Learner, prefixes: Sequence[Prefix], batch: Batch) -> dict[str, Seen]:
    """Run the model as far as the last of the prefixes."""
    inputs: dict[str, Tensor] = {}
    seen: dict[str, Seen] = {}

    def entered(group: str, args: tuple, kwargs: dict) -> None:
        inputs[group] = taken(args, kwargs).detach()

    def left(group: str, output: Any) -> None:
        seen[group] = Seen(inputs[group], stream(output).detach())
        if len(seen) == len(prefixes):
            raise _Enough

    handles = []
    for prefix in prefixes:
        blocks = prefix.of(learner.backbone)
        handles += [
            blocks[0].register_forward_pre_hook(lambda _m, a, k, g=prefix.group: entered(g, a, k), with_kwargs=True),
            blocks[-1].register_forward_hook(lambda _m, _a, output, g=prefix.group: left(g, output)),
        ]
    try:
        with torch.no_grad():
            predicted(learner, batch)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen


Fetch = Callable[[Tensor], Tensor]
"""what enters the first block of a prefix -> what leaves its last"""


@contextmanager
def replaced(backbone: Backbone, fetches: Mapping[Prefix, Fetch]) -> Iterator[None]:
    """While this lasts the blocks compute nothing: the last one of a prefix gives what is fetched, the others what they are given."""
    stood_in: list[tuple[nn.Module, Any]] = []
    try:
        for prefix, fetch in fetches.items():
            forwards = _stand_ins(fetch, len(prefix.sizes))
            for block, forward, size in zip(prefix.of(backbone), forwards, prefix.sizes):
                stood_in.append((block, block.__dict__.get("forward")))
                block.__dict__["forward"] = _like(forward, size)
        yield
    finally:
        for block, own in reversed(stood_in):
            del block.__dict__["forward"]
            if own is not None:
                block.__dict__["forward"] = own


def _stand_ins(fetch: Fetch, count: int) -> list[Fetch]:
    """The first looks at its input, for what lies below a prefix still runs and says where its utterances lie."""
    if count == 1:
        return [fetch]
    kept: list[Tensor] = []

    def first(x: Tensor) -> Tensor:
        kept[:] = [fetch(x)]
        return x

    return [first, *[lambda x: x] * (count - 2), lambda _: kept.pop()]


def _like(forward: Fetch, size: int) -> Callable[..., Any]:
    """A block's `forward` that gives its result as the block does."""

    def call(*args: Any, **kwargs: Any) -> Any:
        x = forward(taken(args, kwargs))
        return (x, *[None] * (size - 1)) if size else x

    return call


def taken(args: tuple, kwargs: dict) -> Tensor:
    """The stream that a block is given: its first argument."""
    return args[0] if args else next(iter(kwargs.values()))


def stream(output: Any) -> Tensor:
    """(B, T, C) of what a block gives."""
    return output[0] if isinstance(output, tuple) else output


def _plain(output: Any) -> bool:
    return isinstance(output, Tensor) or all(rest is None for rest in output[1:])
