"""What a hypernetwork costs beside static adapters: the two sides, to be timed in alternating pairs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ttsadapt.adapters import Follower
from ttsadapt.backbones.base import Batch
from ttsadapt.bench.base import Case, Comparison, Side, Work, cost
from ttsadapt.learner import Learner
from ttsadapt.strategies.bottleneck import Bottleneck, GeneratedBottleneck
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


def training_steps(hyper: Learner, static: Learner, batch: Batch) -> tuple[Pass, Pass]:
    """Forward and backward passes of whole learners over the same batch: strategy=[hyper] and strategy=[adapter] of one backbone."""
    return _step(hyper, batch), _step(static, batch)


def _step(learner: Learner, batch: Batch) -> Pass:
    def run() -> None:
        learner.zero_grad()
        torch.stack(list(learner.terms(batch).values())).sum().backward()

    return run


class HyperCase(Case):
    """Adapter modules alone, every utterance in another voice."""

    unit = "positions"

    def __init__(self, at_most: Mapping[int, float], speakers: int = 16, layers: int = 4, passes: int = 20) -> None:
        """`at_most`: positions of an utterance -> CPU seconds per position, of those of static adapters. `passes` of a repeat."""
        self.at_most = {int(n): limit for n, limit in at_most.items()}  # JSON knows no numbers as keys
        self.speakers, self.layers, self.passes = speakers, layers, passes

    def sides(self) -> Mapping[str, Side]:
        kinds = ("hypernetwork", "static")
        return {f"{kind}, {n}": partial(self._side, n, which) for n in self.at_most for which, kind in enumerate(kinds)}

    def comparisons(self) -> Sequence[Comparison]:
        return [Comparison(f"hypernetwork, {n}", f"static, {n}", cost, at_most=limit) for n, limit in self.at_most.items()]

    def _side(self, positions: int, which: int) -> Work:
        torch.manual_seed(0)
        one = adapter_modules(positions, self.speakers, self.layers)[which]

        def work() -> int:
            for _ in range(self.passes):
                one()
            return self.passes * positions * self.speakers

        return work
