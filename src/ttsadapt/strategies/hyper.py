"""Adapters whose weights a hypernetwork makes for every voice (HyperTTS, Li et al. 2024), on any backbone with slots."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ttsadapt.adapters import spots
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.bottleneck import GeneratedBottleneck
from ttsadapt.strategies.hypernetwork import Hypernetwork
from ttsadapt.strategies.voiced import Voiced
from ttsadapt.where.base import Where
from ttsadapt.where.inside import chosen


class Hyper(Voiced):
    """One hypernetwork for each group of the backbone's slots, shared by the group's layers.

    An unseen voice is adapted to by one forward of it: nothing trains.
    """

    def __init__(
        self,
        bottleneck: int = 32,
        source: int = 8,
        speaker_width: int | None = 64,
        layer_width: int | None = 64,
        depth: int = 1,
        norm_before: Callable[[int, int], nn.Module] | None = None,
        norm_after: Callable[[int, int], nn.Module] | None = None,
        places: list[str] | None = None,
        layers: list[str] | None = None,
        where: Where | None = None,
        lr: float | None = None,
    ) -> None:
        """See `Hypernetwork`. Without a layer embedding every layer has a hypernetwork of its own, as in the authors' code."""
        super().__init__()
        if not speaker_width and not layer_width:
            raise ConfigError("strategy.hyper.speaker_width and layer_width are both null: adapters made from nothing; give one of them")
        self.sizes = {"bottleneck": bottleneck, "source": source, "depth": depth}
        self.widths = {"speaker_width": speaker_width, "layer_width": layer_width}
        self.norms = {"norm_before": norm_before, "norm_after": norm_after}
        self.shared = bool(layer_width)
        self.places, self.layers, self.where, self.lr = places, layers, where, lr
        self._inside: tuple[str, ...] | None = None
        self.networks = nn.ModuleDict()
        self._served: dict[str, list[GeneratedBottleneck]] = {}

    def study(self, study: Study) -> None:
        super().study(study)
        self._inside = chosen(self.where, study)

    def attach(self, backbone: Backbone) -> None:
        with torch.random.fork_rng(devices=[]), next(backbone.parameters()).device:
            torch.manual_seed(self._seed)
            for group, found in spots(backbone, self.places, self.layers, self._inside, "strategy.hyper").items():
                for key, mine in {group: found}.items() if self.shared else ((f"{group}-{i}", [s]) for i, s in enumerate(found)):
                    settings = self.sizes | self.widths | self.norms
                    self.networks[key] = Hypernetwork(mine[0].width, len(mine), self.voice_size, **settings)  # type: ignore[arg-type]
                    self._served[key] = [GeneratedBottleneck(spot.name) for spot in mine]
                    for follower, spot in zip(self._served[key], mine):
                        self.stand(follower, spot.module)

    def tell(self, voices: Tensor, index: Tensor | None, batch: Batch) -> None:
        for key, network in self.networks.items():
            for follower, made in zip(self._served[key], network(voices, index)):
                follower.told(*made)

    def save(self, backbone: Backbone, folder: Path) -> None:
        if self.where is not None:
            self.where.save(folder)
