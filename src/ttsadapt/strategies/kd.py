"""Knowledge distillation from the untuned model (Hinton et al. 2015; Li & Hoiem 2016, learning without forgetting)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ttsadapt.adapters import followers, keeps_base
from ttsadapt.backbones.base import SOURCE, TARGET, Backbone, Batch, supervised
from ttsadapt.heads import Heads
from ttsadapt.strategies.base import Strategy


class KD(Strategy):
    """Adds weight * T^2 KL(teacher || student), a mean over supervised positions, for every head.

    (1 - a) CE + a T^2 KL is weight = a / (1 - a), up to the overall scale.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        rows: Literal["auto", "target", "source", "both"] = "auto",
    ) -> None:
        """`rows`: whose utterances; "auto" is the rehearsed ones where there are any (on new data it fights what is learnt)."""
        super().__init__()
        self.weight, self.temperature, self.rows = weight, temperature, rows
        self._teacher: tuple[Backbone, ...] = ()
        self._backbone: tuple[Backbone, ...] = ()

    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """The teacher is the model with its adapters off when only they train and that is the base, else a copy of the start."""
        self._backbone = (backbone,)  # tuples: neither is this module's child, neither is saved with it
        own = {id(p) for n, p in backbone.named_parameters() if ".lora_" not in n}
        apart = bool(own & trained) or not keeps_base(backbone)
        self._teacher = (copy.deepcopy(backbone).requires_grad_(False).eval(),) if apart else ()

    def penalty(self, batch: Batch, heads: Heads) -> Tensor | None:
        origins = self._origins(batch)
        if not any(supervised(batch, head.unit, origins) > 1e-6 for head in heads.values()):
            return None
        keep = torch.isin(batch["origin"], torch.tensor(origins, device=batch["origin"].device))
        taught = self._teach(batch)
        total = torch.zeros((), device=keep.device)
        for name, head in heads.items():
            student, teacher = head.select(keep), taught[name].select(keep)
            student.total = supervised(batch, head.unit, origins)
            total = total + head.weight * student.divergence(teacher, self.temperature)
        return self.weight * total

    def _origins(self, batch: Batch) -> tuple[int, ...]:
        if self.rows == "auto":
            return (SOURCE,) if batch.get("rehearsed") else (TARGET, SOURCE)
        return {"target": (TARGET,), "source": (SOURCE,), "both": (TARGET, SOURCE)}[self.rows]

    @torch.no_grad()
    def _teach(self, batch: Batch) -> Heads:
        if self._teacher:
            device = batch["origin"].device
            with untuned(self._teacher[0].to(device)) as teacher:
                return teacher(batch)
        with untuned(self._backbone[0]) as teacher:
            return teacher(batch)


@contextmanager
def untuned(backbone: Backbone) -> Iterator[Backbone]:
    """The same model in eval mode with every adapter off; modes and adapters are as before when the block ends."""
    adapters = [m for m in backbone.modules() if isinstance(m, BaseTunerLayer)]
    standing = followers(backbone)
    learning: list[nn.Module] = [m for m in backbone.modules() if m.training]
    for module in learning:
        module.training = False
    # Not `enable_adapters`: that also sets requires_grad, which is the Learner's business.
    for adapter in adapters:
        adapter._disable_adapters = True
    for follower in standing:
        follower.enabled = False
    try:
        yield backbone
    finally:
        for module in learning:
            module.training = True
        for adapter in adapters:
            adapter._disable_adapters = False
        for follower in standing:
            follower.enabled = True
