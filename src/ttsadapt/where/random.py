"""Blocks drawn at random: the control that every layer analysis has to beat."""

from typing import TYPE_CHECKING

import torch

from ttsadapt.backbones.base import Backbone
from ttsadapt.where.base import Block, Positive, Where, enough, names

if TYPE_CHECKING:
    from ttsadapt.strategies.base import Study


class Random(Where):
    """`n` of one group. Whichever strategy asks, the same seed draws the same blocks, so that two ways to train them compare."""

    def __init__(self, n: Positive = 2, group: str | None = None, seed: int | None = None) -> None:
        """`seed` None: the run's."""
        self.n, self.group, self.seed = n, group, seed
        self._drawn: int | None = seed

    def study(self, study: "Study") -> None:
        self._drawn = study.seed if self.seed is None else self.seed

    def blocks(self, backbone: Backbone) -> list[Block]:
        from ttsadapt.strategies.base import generator

        assert self._drawn is not None, "study comes first"
        group, available = names(backbone, self.group)
        order = torch.randperm(len(available), generator=generator(self._drawn, "where"))
        return [(group, available[i]) for i in order[: enough(self.n, group, available)].sort().values.tolist()]
