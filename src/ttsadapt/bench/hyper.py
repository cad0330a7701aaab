"""What a hypernetwork costs beside static adapters: the two sides, to be timed in alternating pairs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ttsadapt.adapters import Follower
from ttsadapt.bench.base import Case, Comparison, Side, Work, cost
from ttsadapt.bench.hyper_step import StepSizes, step
from ttsadapt.strategies.adapter import BottleneckAdapter
from ttsadapt.strategies.bottleneck import Bottleneck, GeneratedBottleneck
from ttsadapt.strategies.hyper import Hyper
from ttsadapt.strategies.hypernetwork import Hypernetwork

Pass = Callable[[], None]
"""one forward and backward pass"""


def adapter_modules(
    positions: int = 200, speakers: int = 16, layers: int = 4, width: int = 256, bottleneck: int = 32, voice: int = 256
) -> tuple[Pass, Pass]:
    """(hypernetwork, static) adapters alone, one utterance of `positions` for each of so many different speakers.

    Weights get gradients, what comes into the first layer does not: below it everything is frozen.
    """
    x, pull = torch.randn(2, speakers, positions, width).unbind(0)
    network = Hypernetwork(width, layers, voice, bottleneck)
    voices = torch.randn(speakers, voice)
    generated = [GeneratedBottleneck(str(i)) for i in range(layers)]
    static = nn.ModuleList(Bottleneck(width, bottleneck) for _ in range(layers))

    def hypernetwork() -> None:
        for follower, made in zip(generated, network(voices)):
            follower.told(*made)
        _pass(network, generated, x, pull)

    def plain() -> None:
        _pass(static, list(static), x, pull)  # type: ignore[arg-type]

    return hypernetwork, plain


def _pass(owner: nn.Module, followers: Sequence[Follower], x: Tensor, pull: Tensor) -> None:
    owner.zero_grad()
    for follower in followers:
        x = follower.after(x, x)
    x.backward(pull)


class HyperCase(Case):
    """Adapter modules alone, and a whole training step; every utterance in another voice."""

    unit = "positions"

    def __init__(
        self,
        at_most: Mapping[int, float],
        step_at_most: float,
        step: Mapping[str, int] | None = None,
        speakers: int = 16,
        layers: int = 4,
        passes: int = 20,
    ) -> None:
        """`at_most`: positions of an utterance -> CPU seconds per position, of those of static adapters; `step_at_most`: of a whole step.

        `passes` of a repeat, of adapters alone. `step`: see `StepSizes`.
        """
        self.step_at_most, self.step_sizes = step_at_most, StepSizes(**(step or {}))
        self.at_most = {int(n): limit for n, limit in at_most.items()}  # JSON knows no numbers as keys
        self.speakers, self.layers, self.passes = speakers, layers, passes

    def sides(self) -> Mapping[str, Side]:
        kinds = ("hypernetwork", "static")
        alone = {f"{kind}, {n}": partial(self._side, n, which) for n in self.at_most for which, kind in enumerate(kinds)}
        return alone | {
            "hypernetwork, step": lambda: step(self.step_sizes, Hyper()),
            "static, step": lambda: step(self.step_sizes, BottleneckAdapter()),
        }

    def comparisons(self) -> Sequence[Comparison]:
        limits = {str(n): limit for n, limit in self.at_most.items()} | {"step": self.step_at_most}
        return [Comparison(f"hypernetwork, {n}", f"static, {n}", cost, at_most=limit) for n, limit in limits.items()]

    def _side(self, positions: int, which: int) -> Work:
        torch.manual_seed(0)
        one = adapter_modules(positions, self.speakers, self.layers)[which]

        def work() -> int:
            for _ in range(self.passes):
                one()
            return self.passes * positions * self.speakers

        return work
