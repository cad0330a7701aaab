"""What the Learner under Lightning costs over a plain loop: the same model, the same batches, the same optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ttsadapt.bench.base import Case, Comparison, Side, Work, cost, memory
from ttsadapt.bench.speech import Layout, fitting, setting
from ttsadapt.data.sampling import StepDataset, StepSampler
from ttsadapt.strategies.full import Full


class LearnerCase(Case):
    """Full fine-tuning of a small model: the smaller the step, the more its surroundings weigh."""

    def __init__(self, layout: Layout | dict[str, Any], steps: int = 40, frames: int = 1, at_most: float = 1.04) -> None:
        """`frames` of a step; 1: four utterances. `at_most`: CPU seconds per token, of the loop's."""
        self.layout = layout if isinstance(layout, Layout) else Layout(**layout)
        self.steps, self.frames, self.at_most = steps, frames, at_most

    def sides(self) -> Mapping[str, Side]:
        return {"learner": self._learner, "plain loop": self._loop}

    def comparisons(self) -> Sequence[Comparison]:
        return [Comparison("learner", "plain loop", cost, at_most=self.at_most), Comparison("learner", "plain loop", memory)]

    def _learner(self) -> Work:
        made = setting(self.layout)
        return fitting(made.learner({"full": Full()}), lambda seed: made.data(self.frames, seed), self.steps)

    def _loop(self) -> Work:
        made, repeat = setting(self.layout), 0
        model = made.backbone.train()

        def work() -> int:
            nonlocal repeat
            sampler = StepSampler(made.target, self.frames, repeat)
            dataset, tokens, done = StepDataset(made.target.frontend, made.target, None, False), 0, 0
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            while done < self.steps:
                for drawn in sampler:
                    if done == self.steps:
                        break
                    batch = dataset[drawn]
                    head: Any = model(batch)["tokens"]
                    loss = F.cross_entropy(head.project(head.hidden), head.target)
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    tokens, done = tokens + int(batch["mask"].sum()), done + 1
            repeat += 1
            return tokens

        return work
