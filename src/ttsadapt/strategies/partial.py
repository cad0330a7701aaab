"""Partial fine-tuning: some whole blocks train, everything else stays."""

from collections.abc import Iterable

import torch
from torch import nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.parameters import bare_parameters
from ttsadapt.strategies.base import Strategy, Study


class Partial(Strategy):
    """Blocks by name (`blocks: [decoder.0, decoder.3]`), or `random: n` of one group: the control for any layer analysis."""

    def __init__(self, blocks: list[str] | None = None, random: int = 2, group: str | None = None, lr: float | None = None) -> None:
        super().__init__()
        self.blocks, self.random, self.group, self.lr = blocks, random, group, lr

    def study(self, study: Study) -> None:
        known = {f"{g}.{n}": g for g, blocks in study.backbone.blocks.items() for n in blocks}
        if self.blocks is None:
            self.blocks = self._draw(study.backbone, study.generator)
        wrong = [name for name in self.blocks if name not in known]
        if wrong:
            raise ConfigError(f"strategy.partial.blocks={wrong}: {type(study.backbone).__name__} has {', '.join(known)}")

    def _draw(self, backbone: Backbone, generator: torch.Generator) -> list[str]:
        groups = backbone.blocks
        group = self.group or max(groups, key=lambda g: (len(groups[g]), list(groups).index(g)))
        if group not in groups:
            raise ConfigError(f"strategy.partial.group={group}: {type(backbone).__name__} has {', '.join(groups)}")
        names = list(groups[group])
        if not 0 < self.random <= len(names):
            raise ConfigError(f"strategy.partial.random={self.random}: {group} has {len(names)} blocks")
        order = torch.randperm(len(names), generator=generator)[: self.random].sort().values
        return [f"{group}.{names[i]}" for i in order.tolist()]

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        for name in self.blocks or ():
            group, _, block = name.partition(".")
            yield from bare_parameters(backbone.blocks[group][block])
