"""Bottleneck adapters behind the blocks' feed-forwards (Houlsby et al. 2019), the same for every voice: AdapterTTS of HyperTTS."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from ttsadapt.adapters import spots
from ttsadapt.backbones.base import Backbone
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.strategies.bottleneck import Bottleneck
from ttsadapt.where.base import Where
from ttsadapt.where.inside import chosen


class BottleneckAdapter(Strategy):
    """One for each module of the backbone's slots; `places` are groups of them, `layers` globs over names of modules."""

    def __init__(
        self,
        bottleneck: int = 32,
        places: list[str] | None = None,
        layers: list[str] | None = None,
        where: Where | None = None,
        lr: float | None = None,
    ) -> None:
        super().__init__()
        self.bottleneck, self.places, self.layers, self.where, self.lr = bottleneck, places, layers, where, lr
        self.adapters = nn.ModuleList()
        self._seed = 0
        self._inside: tuple[str, ...] | None = None

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))
        self._inside = chosen(self.where, study)

    def attach(self, backbone: Backbone) -> None:
        found = spots(backbone, self.places, self.layers, self._inside, "strategy.adapter")
        device = next(backbone.parameters()).device
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(self._seed)
            for spot in (spot for group in found.values() for spot in group):
                adapter = Bottleneck(spot.width, self.bottleneck)
                adapter.hang(spot.module)
                self.adapters.append(adapter)

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return self.parameters()

    def save(self, backbone: Backbone, folder: Path) -> None:
        if self.where is not None:
            self.where.save(folder)
