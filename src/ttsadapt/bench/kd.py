"""What distillation adds to a LoRA step: its teacher run alongside with the adapters off, and read from disk."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ttsadapt.bench.base import Case, Comparison, Side, Work, cost, memory
from ttsadapt.bench.speech import Layout, fitting, setting
from ttsadapt.strategies.base import Strategy
from ttsadapt.strategies.kd import KD
from ttsadapt.strategies.lora import LoRA


class KDCase(Case):
    """T = 2, the whole distribution, on every utterance of the batch."""

    def __init__(
        self, layout: Layout | dict[str, Any], steps: int = 4, rank: int = 16, live_at_most: float = 1.65, cached_at_most: float = 1.35
    ) -> None:
        """`live_at_most`, `cached_at_most`: CPU seconds per token, of LoRA's without a teacher."""
        self.layout = layout if isinstance(layout, Layout) else Layout(**layout)
        self.steps, self.rank, self.live_at_most, self.cached_at_most = steps, rank, live_at_most, cached_at_most

    def sides(self) -> Mapping[str, Side]:
        return {
            "lora": partial(self._side, dict),
            "lora+kd": partial(self._side, lambda: {"kd": KD(rows="target")}),
            "lora+kd, states": partial(self._side, lambda: {"kd": KD(rows="target", cache="states")}),
            "lora+kd, top 32": partial(self._side, lambda: {"kd": KD(rows="target", cache="topk")}),
        }

    def comparisons(self) -> Sequence[Comparison]:
        return [
            Comparison("lora+kd", "lora", cost, at_most=self.live_at_most),
            Comparison("lora+kd, states", "lora", cost, at_most=self.cached_at_most),
            Comparison("lora+kd, top 32", "lora", cost),
            Comparison("lora+kd", "lora", memory),
        ]

    def _side(self, more: Any) -> Work:
        made = setting(self.layout)
        strategies: dict[str, Strategy] = {"lora": LoRA(rank=self.rank, alpha=2.0 * self.rank), **more()}
        return fitting(made.learner(strategies), lambda seed: made.data(1, seed), self.steps)
