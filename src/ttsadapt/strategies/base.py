"""What an adaptation strategy may do. Every hook is optional; the order of strategies never matters."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.heads import Divergence, Heads

if TYPE_CHECKING:
    from ttsadapt.data.features import FeatureSet


@dataclass
class Mix:
    """How another stream joins the target's utterances."""

    share: float
    """frames of the other stream / all frames of an optimiser step"""
    ids: list[str] = field(default_factory=list)
    """the utterances of the source's training split that may be drawn"""


@dataclass
class Study:
    """What a strategy may look at before anything changes."""

    backbone: Backbone
    """untouched"""
    source: "FeatureSet"
    """source/train"""
    target: "FeatureSet"
    """target/train"""
    cache: Path
    """a folder for this (base, data); name files after a digest of the strategy's own settings and write them through `files.replacing`"""
    seed: int
    generator: torch.Generator
    """the strategy's own, made from (seed, name)"""


def generator(seed: int, name: str) -> torch.Generator:
    """Its own for every (seed, name), so that adding a strategy changes no other's draw."""
    state = int.from_bytes(name.encode()[:6].ljust(6, b"\0"), "big") ^ (seed * 0x9E3779B1)
    return torch.Generator().manual_seed(state % 2**63)


class Strategy(nn.Module):
    """One idea about adaptation. Its parameters train, move and are saved with no further code."""

    lr: float | None = None
    """learning rate of what this strategy trains; None: the optimiser's"""

    def study(self, study: Study) -> None:
        """Look at the untouched model: keep anchors, estimate Fisher information, choose blocks."""

    def attach(self, backbone: Backbone) -> None:
        """Change the structure: insert modules. Never touch requires_grad."""

    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """After every attach: `trained` holds the id() of all parameters that will train."""

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        """What this strategy wants trained. Only the Learner sets requires_grad."""
        return ()

    @property
    def claims(self) -> bool:
        """Can it want anything trained? Known before there is a model."""
        return type(self).trainable is not Strategy.trainable or any(True for _ in self.parameters())

    def mix(self, target: "FeatureSet", source: "FeatureSet", generator: torch.Generator) -> Mix | None:
        """Rehearsal: which source utterances join, and how much of them."""
        return None

    def condition(self, batch: Batch) -> None:
        """See the batch before the backbone does."""

    def penalty(self, batch: Batch, heads: Heads) -> Tensor | dict[str, Tensor] | list[Divergence] | None:
        """One named term of the loss, or several; None when there is nothing to add for this batch.

        Divergences are worked out with the task's loss, in one pass over each head, and are one term together.
        """
        return None

    def save(self, backbone: Backbone, folder: Path) -> None:
        """Leave files beyond the checkpoint, such as a peft adapter, below `folder`."""
