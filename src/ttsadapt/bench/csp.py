"""Two trained blocks against all weights: how near a whole training step comes to what its operations allow (CSP-FT, arXiv 2501.14273).

The paper measures 1.91 to 2.62 times (figure 4 there). How much there is to gain depends on how low the lowest trained block lies:
below it no gradient flows, and with what the blocks below it put out kept (`ttsadapt.prefix`), nothing is computed at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ttsadapt.backbones.base import Batch
from ttsadapt.bench.base import Case, Comparison, Side, Work, memory, speed
from ttsadapt.bench.speech import Layout, backward, setting, tokens
from ttsadapt.learner import Learner
from ttsadapt.prefix import Memory, PrefixCache
from ttsadapt.strategies.base import Strategy
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.partial import Partial
from ttsadapt.where.explicit import Explicit

REQUIRED = 0.9
"""of what the operations allow"""


@dataclass(frozen=True)
class Operations:
    """Multiplications of one forward pass over some batches."""

    linear: float
    """of the linears of one block"""
    attention: float
    """of the two products inside the attention of one block"""
    head: float
    blocks: int

    @property
    def full(self) -> float:
        """Forward, gradients of inputs, gradients of weights: three forward passes. The backward of an attention is two of its forwards."""
        return 3 * (self.blocks * (self.linear + self.attention) + self.head)

    def partial(self, trained: Sequence[int], kept: bool) -> float:
        """Forward of all blocks, or of those that are not kept; backward to the lowest trained one; weights of the trained ones.

        The head does not train: forward, and the gradient of its input.
        """
        lowest = min(trained)
        forward = (self.blocks - lowest * kept) * (self.linear + self.attention)
        backward = (self.blocks - lowest) * (self.linear + 2 * self.attention)
        return forward + backward + len(trained) * self.linear + 2 * self.head

    def allowed(self, trained: Sequence[int], kept: bool) -> float:
        """How many times as fast as full fine-tuning training these blocks could be."""
        return self.full / self.partial(trained, kept)


class CSPSpeed(Case):
    """A step of the Learner without its optimiser: full fine-tuning, and two blocks at various depths, computed and kept."""

    unit = "positions"

    def __init__(
        self, layout: Layout | dict[str, Any], batch: int = 4, highest: int = 23, lowest: Sequence[int] = (0, 6, 12, 18, 22)
    ) -> None:
        """`batch`: utterances of a step; a repeat sees all of the layout's. `highest`, `lowest`: trained blocks; one pair a side."""
        self.layout = layout if isinstance(layout, Layout) else Layout(**layout)
        self.batch, self.highest, self.lowest = batch, highest, tuple(lowest)

    def sides(self) -> Mapping[str, Side]:
        """Below block 0 there is nothing to keep."""
        made: dict[str, Side] = {"full": partial(self._work, Full(), False)}
        for trained in self._pairs():
            for kept in (False, True)[: 2 if min(trained) else 1]:
                made[self._name(trained, kept)] = partial(self._work, Partial(Explicit([f"backbone.{n}" for n in trained])), kept)
        return made

    def comparisons(self) -> Sequence[Comparison]:
        found = []
        for trained in self._pairs():
            for kept in (False, True)[: 2 if min(trained) else 1]:
                name, allowed = self._name(trained, kept), self.operations.allowed(trained, kept)
                found += [Comparison(name, "full", speed, at_least=round(REQUIRED * allowed, 3)), Comparison(name, "full", memory)]
        return found

    def _pairs(self) -> list[tuple[int, int]]:
        return [(low, self.highest) for low in self.lowest]

    def _name(self, trained: Sequence[int], kept: bool) -> str:
        """With what the operations allow, for the table."""
        allowed = self.operations.allowed(trained, kept)
        return f"{'+'.join(map(str, trained))}{' kept' * kept}, {allowed:.2f}x at most"

    @cached_property
    def operations(self) -> Operations:
        """Counted as they are computed: attention over whole padded squares, the head at supervised positions only."""
        o = self.layout
        drawn = sorted((len(text) + len(speech), len(text)) for text, speech in map(o.draw, range(o.utterances)))
        groups = [drawn[n : n + self.batch] for n in range(0, len(drawn), self.batch)]
        squares = [(len(group), group[-1][0]) for group in groups]
        width = o.hidden + o.hidden * o.kv_heads // o.heads  # query and output; key and value
        weights = 2 * o.hidden * width + 3 * o.hidden * o.intermediate
        return Operations(
            linear=weights * sum(b * t for b, t in squares),
            attention=2 * o.hidden * sum(b * t * t for b, t in squares),
            head=o.hidden * o.targets * sum(length - prompt for length, prompt in drawn),
            blocks=o.blocks,
        )

    def _work(self, strategy: Strategy, kept: bool) -> Work:
        made = setting(self.layout)
        learner = made.learner({"how": strategy})
        if kept:
            cache = PrefixCache(Memory())
            cache.start(learner, [(made.target, made.target.ids)])
        batches = made.batches(self.batch)
        return partial(train, learner, batches, tokens(batches))


def train(learner: Learner, batches: Sequence[Batch], positions: int) -> int:
    """One step a batch: forward, loss, backward."""
    learner.train()
    for batch in batches:
        learner.zero_grad(set_to_none=True)
        backward(learner, batch)
    return positions
