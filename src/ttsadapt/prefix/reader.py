"""Reading what was kept: the states of a batch's utterances, put where they belong, in place of the blocks that make them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.errors import UserError
from ttsadapt.prefix.layout import Rows, place, prints, tolerance
from ttsadapt.prefix.store import Entry, packed
from ttsadapt.prefix.taps import Prefix, Seen, replaced


class Kept(Protocol):
    def __contains__(self, key: str, /) -> bool: ...
    def __getitem__(self, key: str, /) -> Entry: ...


def entry_of(seen: Mapping[str, Seen], half: bool = False) -> Entry:
    """What is kept of a batch of one utterance: nothing in it is padding."""
    entry: Entry = {}
    for group, one in seen.items():
        entry[f"{group}/inputs"] = packed(prints(one.inputs[0]), False)  # (L, SIZE)
        entry[f"{group}/states"] = packed(one.states[0], half)  # (L, C)
    return entry


@dataclass
class Loaded:
    """One prefix of a batch's utterances, on the device."""

    rows: Rows
    inputs: Tensor
    """(N, SIZE)"""
    states: Tensor
    """(N, C)"""

    @classmethod
    def of(cls, entries: Sequence[Entry], group: str, device: torch.device, dtype: torch.dtype) -> "Loaded":
        states, inputs = ([entry[f"{group}/{name}"] for entry in entries] for name in ("states", "inputs"))
        rows = Rows.of([len(x) for x in states], device)
        return cls(rows, torch.cat(inputs).to(device, non_blocking=True), torch.cat(states).to(device, dtype, non_blocking=True))


class Reader:
    """Stands in for frozen first blocks whenever all utterances of a batch are kept; of other batches the model computes all."""

    def __init__(self, prefixes: Mapping[Prefix, torch.dtype], kept: Kept) -> None:
        """`prefixes`: with the type that their states had."""
        self.prefixes, self.kept = dict(prefixes), kept
        self._wrong: list[Tensor] = []
        self._last: tuple[Batch, dict[str, Loaded]] | None = None

    def attach(self, backbone: Backbone) -> list[RemovableHandle]:
        """From now on `backbone(batch)` reads. A teacher that is the same model with its adapters off reads, too."""
        stack = ExitStack()

        def before(_: object, args: tuple, kwargs: dict) -> None:
            stack.enter_context(self.reading(backbone, args[0] if args else kwargs["batch"]))

        return [
            backbone.register_forward_pre_hook(before, with_kwargs=True),
            backbone.register_forward_hook(lambda *_: stack.close(), always_call=True),
        ]

    @contextmanager
    def reading(self, backbone: Backbone, batch: Batch) -> Iterator[None]:
        keys = batch.get("keys")
        if keys and all(key in self.kept for key in keys):
            with replaced(backbone, {prefix: partial(self._fetch, batch, prefix) for prefix in self.prefixes}):
                yield
        else:
            yield

    def _fetch(self, batch: Batch, prefix: Prefix, x: Tensor) -> Tensor:
        """What enters a prefix, (B, T, C) -> what leaves it, (B, T, C); zeros at padding."""
        loaded = self._load(batch, prefix, x.device)
        places, found = place(prints(x), loaded.inputs, loaded.rows, tolerance(x))
        self._wrong.append(~found)
        states = loaded.states.new_zeros(x.shape[0] * x.shape[1], loaded.states.shape[1])
        states.index_copy_(0, loaded.rows.row * x.shape[1] + places, loaded.states)
        return states.unflatten(0, x.shape[:2])

    def _load(self, batch: Batch, prefix: Prefix, device: torch.device) -> Loaded:
        """Once for the model and its teachers."""
        if self._last is None or self._last[0] is not batch:
            self._last = (batch, {})
        known = self._last[1]
        if prefix.group not in known:
            known[prefix.group] = Loaded.of([self.kept[k] for k in batch["keys"]], prefix.group, device, self.prefixes[prefix])
        return known[prefix.group]

    def forget(self) -> None:
        """Free what the last batch took."""
        self._last = None

    @property
    def right(self) -> bool:
        """Was all that was read since the last call what the model would have computed? Waits for the device."""
        wrong, self._wrong = self._wrong, []
        return not wrong or not bool(torch.stack(wrong).any())

    def check(self) -> None:
        if not self.right:
            raise UserError(
                "the frozen blocks were given something else than when their output was kept: the batch is drawn at random, or what lies "
                "below them has changed: train with prefix=null"
            )
