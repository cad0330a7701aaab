"""Partial fine-tuning: some whole blocks train, everything else stays."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.where.base import Where
from ttsadapt.where.inside import parameters
from ttsadapt.where.random import Random


class Partial(Strategy):
    """Full weights of the blocks that `where` chooses; None: two drawn at random, the control for any layer analysis."""

    def __init__(self, where: Where | None = None, lr: float | None = None) -> None:
        super().__init__()
        self.where, self.lr = where or Random(), lr

    def study(self, study: Study) -> None:
        self.where.study(study)
        self.where.blocks(study.backbone)  # what is wrong with them is said before anything changes

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return parameters(backbone, self.where.blocks(backbone))

    def save(self, backbone: Backbone, folder: Path) -> None:
        self.where.save(folder)
