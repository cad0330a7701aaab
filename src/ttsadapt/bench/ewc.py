"""What EWC costs: a training step with and without its penalty, a Fisher pass beside a pass of full fine-tuning."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ttsadapt.analysis.fisher import estimated
from ttsadapt.analysis.information import Whole
from ttsadapt.backbones.base import Batch
from ttsadapt.bench.base import Case, Comparison, Side, Work, cost
from ttsadapt.bench.speech import Layout, backward, setting, tokens
from ttsadapt.learner import Learner
from ttsadapt.strategies.base import Strategy
from ttsadapt.strategies.ewc import EWC
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.lora import LoRA


class EWCCase(Case):
    """A step is one batch of middling length; a pass is every batch of the layout's utterances."""

    def __init__(
        self, layout: Layout | dict[str, Any], batch: int = 4, rank: int = 16, step_at_most: float = 1.1, pass_at_most: float = 1.2
    ) -> None:
        """`batch`: utterances. `step_at_most`, `pass_at_most`: CPU seconds per token, of those without."""
        self.layout = layout if isinstance(layout, Layout) else Layout(**layout)
        self.batch, self.rank, self.step_at_most, self.pass_at_most = batch, rank, step_at_most, pass_at_most

    def sides(self) -> Mapping[str, Side]:
        return {
            "lora": partial(self._step, self.lora),
            "lora+ewc": partial(self._step, lambda: self.lora() | {"ewc": self.ewc()}),
            "lora+ewc, rank 1": partial(self._step, lambda: self.lora() | {"ewc": self.ewc(rank1=True)}),
            "full": partial(self._step, full),
            "full+ewc": partial(self._step, lambda: full() | {"ewc": self.ewc()}),
            "pass of full": self._pass,
            "its gradients": partial(self._pass, optimise=False),
            "pass of Fisher": self._fisher,
        }

    def comparisons(self) -> Sequence[Comparison]:
        return [
            Comparison("lora+ewc", "lora", cost, at_most=self.step_at_most),
            Comparison("lora+ewc, rank 1", "lora", cost, at_most=self.step_at_most),
            Comparison("full+ewc", "full", cost, at_most=self.step_at_most),
            Comparison("pass of Fisher", "pass of full", cost, at_most=self.pass_at_most),
            Comparison("pass of Fisher", "its gradients", cost),
        ]

    def lora(self) -> dict[str, Strategy]:
        return {"lora": LoRA(rank=self.rank, alpha=2 * self.rank)}

    def ewc(self, rank1: bool = False) -> EWC:
        """Its cost does not depend on how good the estimate is: one batch is enough."""
        return EWC(rank1=rank1, utterances=self.batch, frames=self.batch * self.layout.speech[1])

    def _step(self, strategies: Callable[[], dict[str, Strategy]]) -> Work:
        made = setting(self.layout)
        batches = made.batches(self.batch)
        step, batch = stepping(made.learner(strategies())), batches[len(batches) // 2]

        def work() -> int:
            step(batch)
            return tokens([batch])

        return work

    def _pass(self, optimise: bool = True) -> Work:
        """Full fine-tuning over all batches; without `optimise` only the gradients are made."""
        made = setting(self.layout)
        step, batches = stepping(made.learner(full()), optimise), made.batches(self.batch)

        def work() -> int:
            for batch in batches:
                step(batch)
            return tokens(batches)

        return work

    def _fisher(self) -> Work:
        """The Fisher information of every weight, over the same batches."""
        made = setting(self.layout)
        batches = made.batches(self.batch)

        def work() -> int:
            estimated(made.backbone, batches, torch.Generator().manual_seed(0), Whole)
            return tokens(batches)

        return work


def full() -> dict[str, Strategy]:
    return {"full": Full()}


def stepping(learner: Learner, optimise: bool = True) -> Callable[[Batch], None]:
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4)

    def step(batch: Batch) -> None:
        backward(learner, batch)
        if optimise:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
