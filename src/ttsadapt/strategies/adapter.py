"""Bottleneck adapters behind the blocks' feed-forwards (Houlsby et al. 2019), the same for every voice: AdapterTTS of HyperTTS."""

from collections.abc import Iterable

import torch
from torch import nn

from ttsadapt.adapters import spots
from ttsadapt.backbones.base import Backbone
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.strategies.bottleneck import Bottleneck


class BottleneckAdapter(Strategy):
    """One for each module of the backbone's slots; `places` are groups of them, `layers` globs over names of modules."""

    def __init__(
        self, bottleneck: int = 32, places: list[str] | None = None, layers: list[str] | None = None, lr: float | None = None
    ) -> None:
        super().__init__()
        self.bottleneck, self.places, self.layers, self.lr = bottleneck, places, layers, lr
        self.adapters = nn.ModuleList()
        self._seed = 0

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))

    def attach(self, backbone: Backbone) -> None:
        found = spots(backbone, self.places, self.layers, "strategy.adapter")
        device = next(backbone.parameters()).device
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(self._seed)
            for spot in (spot for group in found.values() for spot in group):
                adapter = Bottleneck(spot.width, self.bottleneck)
                adapter.hang(spot.module)
                self.adapters.append(adapter)

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        return self.parameters()
