"""What an adaptation strategy may do. Every hook is optional; the order of strategies never matters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.data.utterance import Utterance
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
    source: "FeatureSet | None" = None
    """where those utterances are, when not in the data's own source"""


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
    voices: Sequence[Utterance] = ()
    """training recordings of every speaker that may be spoken"""
    corpora: tuple[Path, ...] = ()
    """folders of the prepared data, the run's own first: what may not be used is read off their manifests, judges learn from them"""
    shared: Path | None = None
    """the folder of what all runs share: judges"""


def generator(seed: int, name: str) -> torch.Generator:
    """Its own for every (seed, name), so that adding a strategy changes no other's draw."""
    state = int.from_bytes(name.encode()[:6].ljust(6, b"\0"), "big") ^ (seed * 0x9E3779B1)
    return torch.Generator().manual_seed(state % 2**63)


class Strategy(nn.Module):
    """One idea about adaptation. Its parameters train, move and are saved with no further code."""

    lr: float | None = None
    """learning rate of what this strategy trains; None: the optimiser's"""
    keeps_weights: ClassVar[bool] = False
    """its adapters stand on weights of the model that nothing else may train"""

    def study(self, study: Study) -> None:
        """Look at the untouched model: keep anchors, estimate Fisher information, choose blocks."""

    def attach(self, backbone: Backbone) -> None:
        """Change the structure: insert modules. Never touch requires_grad."""

    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """After every attach: `trained` holds the id() of all parameters that will train."""

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        """What this strategy wants trained. Only the Learner sets requires_grad."""
        return ()

    def rate(self, parameter: nn.Parameter) -> float | None:
        """Learning rate of something that `trainable` gave; None: the optimiser's."""
        return self.lr

    @property
    def claims(self) -> bool:
        """Can it want anything trained? Known before there is a model."""
        return type(self).trainable is not Strategy.trainable or any(True for _ in self.parameters())

    @property
    def trains_all(self) -> bool:
        """Does it train every weight of the model? Known before there is a model."""
        return False

    def mix(self, target: "FeatureSet", source: "FeatureSet", generator: torch.Generator) -> Mix | None:
        """Rehearsal: which source utterances join, and how much of them."""
        return None

    def condition(self, batch: Batch) -> None:
        """See the batch before the backbone does: whenever it predicts, and, with nothing to predict in it, before it speaks."""

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Learn further voices from recordings, beside the frontend, which does so too. Nothing is trained."""

    def penalty(self, batch: Batch, heads: Heads) -> Tensor | dict[str, Tensor] | list[Divergence] | None:
        """One named term of the loss, or several; None when there is nothing to add for this batch.

        Divergences are worked out with the task's loss, in one pass over each head, and are one term together.
        """
        return None

    def metrics(self) -> dict[str, Tensor]:
        """() tensors to log beside the terms, that are no part of the loss."""
        return {}

    def save(self, backbone: Backbone, folder: Path) -> None:
        """Leave files beyond the checkpoint, such as a peft adapter, below `folder`."""
