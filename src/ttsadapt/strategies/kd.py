"""Knowledge distillation from the untuned model (Hinton et al. 2015; Li & Hoiem 2016, learning without forgetting)."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ttsadapt.adapters import Switchable, added_parameters
from ttsadapt.artifacts import ensure
from ttsadapt.backbones.base import SOURCE, TARGET, Backbone, Batch, supervised
from ttsadapt.errors import ConfigError
from ttsadapt.heads import Divergence, Heads
from ttsadapt.strategies.base import Strategy, Study

if TYPE_CHECKING:
    from ttsadapt.teachers import Keeping, Lessons

ORIGINS = {"target": (TARGET,), "source": (SOURCE,), "both": (TARGET, SOURCE)}
FRAMES = 4000
"""of a batch of the pass that keeps the teacher's predictions"""


class KD(Strategy):
    """Adds weight * T^2 KL(teacher || student), a mean over supervised positions, for every head.

    (1 - a) CE + a T^2 KL is weight = a / (1 - a), up to the overall scale 1 - a. T^2 keeps the gradient's size: T moves what is learnt
    from the likeliest classes to all of them, not how much.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        rows: Literal["auto", "target", "source", "both"] = "auto",
        cache: Literal["none", "states", "topk"] = "none",
        k: int = 32,
        precision: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> None:
        """`rows`: whose utterances; "auto" is the rehearsed ones where there are any (on new data it fights what is learnt).

        `cache`: "none": the teacher runs beside the student. "states": what its predictions are made of is kept on disk, made once;
        exact while the output layer is frozen. "topk": its `k` likeliest classes are, the rest counts as one class: small, and biased.
        `precision`: of states on disk; exact only as float32.
        """
        super().__init__()
        if cache != "none" and rows == "auto":
            raise ConfigError(f"strategy.kd.cache={cache}: say whose utterances are kept, strategy.kd.rows=target, source or both")
        self.weight, self.temperature, self.rows = weight, temperature, rows
        self.cache, self.k, self.precision = cache, k, precision
        self._teacher: tuple[Backbone, ...] = ()
        self._backbone: tuple[Backbone, ...] = ()
        self._lessons: list[Lessons] = []

    def study(self, study: Study) -> None:
        if self.cache != "none":
            from ttsadapt.teachers import Lessons

            sets = [s for s, origin in ((study.target, TARGET), (study.source, SOURCE)) if origin in ORIGINS[self.rows]]
            self._lessons = [Lessons(study.cache, study.backbone, s, self._keeping(), self.precision, FRAMES) for s in sets]  # type: ignore[arg-type]
            ensure(*self._lessons)

    def _keeping(self) -> "Keeping":
        from ttsadapt.teachers import States, TopK

        return States() if self.cache == "states" else TopK(self.k, self.temperature)

    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """The teacher is the model with its adapters off when only adapters train, else a copy of the starting weights."""
        if self._lessons:
            return
        self._backbone = (backbone,)  # tuples: neither is this module's child, neither is saved with it
        own = {id(p) for p in backbone.parameters()} - added_parameters(backbone)
        self._teacher = (copy.deepcopy(backbone).requires_grad_(False).eval(),) if own & trained else ()

    def penalty(self, batch: Batch, heads: Heads) -> list[Divergence] | None:
        origins = self._origins(batch)
        totals = {name: supervised(batch, head.unit, origins) for name, head in heads.items()}
        if not any(total > 1e-6 for total in totals.values()):
            return None
        keep = torch.isin(batch["origin"], torch.tensor(origins, device=batch["origin"].device))
        teachers = self._teachers(batch, heads, keep)
        return [
            Divergence(name, teacher, keep, totals[name], self.weight * heads[name].weight, self.temperature)
            for name, teacher in teachers.items()
        ]

    def _origins(self, batch: Batch) -> tuple[int, ...]:
        if self.rows == "auto":
            return (SOURCE,) if batch.get("rehearsed") else (TARGET, SOURCE)
        return ORIGINS[self.rows]

    def _teachers(self, batch: Batch, heads: Heads, keep: Tensor) -> Mapping[str, Any]:
        if self._lessons:
            from ttsadapt.teachers import taught

            return taught(self._lessons, self._keeping(), batch, heads, keep)
        return self._teach(batch)

    @torch.no_grad()
    def _teach(self, batch: Batch) -> Heads:
        model = self._teacher[0].to(batch["origin"].device) if self._teacher else self._backbone[0]
        with untuned(model) as teacher:  # a copy, too: an adapter need not start as one that does nothing
            return teacher(batch)


@contextmanager
def untuned(backbone: Backbone) -> Iterator[Backbone]:
    """The same model in eval mode with every adapter off; modes and adapters are as before when the block ends."""
    learning: list[nn.Module] = [m for m in backbone.modules() if m.training]
    peft = [(m, m._disable_adapters) for m in backbone.modules() if isinstance(m, BaseTunerLayer)]
    others = [(m, m.off) for m in backbone.modules() if isinstance(m, Switchable)]
    for module in learning:
        module.training = False
    # Not `enable_adapters`: that also sets requires_grad, which is the Learner's business.
    for layer, _ in peft:
        layer._disable_adapters = True
    for switch, _ in others:
        switch.off = True
    try:
        yield backbone
    finally:
        for module in learning:
            module.training = True
        for layer, was in peft:
            layer._disable_adapters = was
        for switch, was in others:
            switch.off = was
