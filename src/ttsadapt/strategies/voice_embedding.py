"""The plain conditionings beside a hypernetwork: the voice's vector is added to what blocks make, or joined to it."""

from abc import abstractmethod
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.adapters import Follower, spots
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.voiced import Voiced
from ttsadapt.where.base import Where
from ttsadapt.where.inside import chosen


class Given(Follower):
    """Adds to every position what its map makes of the position and of the row's voice."""

    def __init__(self, name: str, mapping: nn.Linear) -> None:
        super().__init__()
        self.name, self.mapping = name, mapping
        self._voice: Tensor | None = None

    def __getstate__(self) -> dict:
        """A pass's voices are nobody's after it."""
        return self.__dict__ | {"_voice": None}

    def told(self, voice: Tensor) -> None:
        """(B, E) of the rows of the coming batch, or (1, E) for whatever rows there will be."""
        self._voice = voice

    @property
    def voice(self) -> Tensor:
        """(B or 1, 1, E)"""
        if self._voice is None:
            raise RuntimeError(f"{self.name}: nobody has said whose voices these are")
        return self._voice[:, None]


class AddedTo(Given):
    """x + V e"""

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        return x + self.mapping(self.voice)


class JoinedTo(Given):
    """x + W [x; e], W split so that the voice's part is worked out once a row, not once a position."""

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        of_x, of_voice = self.mapping.weight.split([x.shape[-1], self.voice.shape[-1]], 1)
        return x + x @ of_x.T + (self.voice @ of_voice.T + self.mapping.bias)


class VoiceEmbedding(Voiced):
    """Behind every module of the backbone's slots, or those that `places`, `layers` and `where` choose; it starts as doing nothing."""

    def __init__(
        self, places: list[str] | None = None, layers: list[str] | None = None, where: Where | None = None, lr: float | None = None
    ) -> None:
        super().__init__()
        self.places, self.layers, self.where, self.lr = places, layers, where, lr
        self.maps = nn.ModuleList()
        self._inside: tuple[str, ...] | None = None

    def study(self, study: Study) -> None:
        super().study(study)
        self._inside = chosen(self.where, study)

    def attach(self, backbone: Backbone) -> None:
        found = spots(backbone, self.places, self.layers, self._inside, "strategy.voice_embedding")
        with next(backbone.parameters()).device:
            for spot in (spot for group in found.values() for spot in group):
                follower = self.follower(spot.name, spot.width)
                nn.init.zeros_(follower.mapping.weight)
                nn.init.zeros_(follower.mapping.bias)
                self.maps.append(follower.mapping)
                self.stand(follower, spot.module)

    @abstractmethod
    def follower(self, name: str, width: int) -> Given:
        """What stands behind one module whose output is (B, T, width)."""

    def tell(self, voices: Tensor, index: Tensor | None, batch: Batch) -> None:
        voices = F.normalize(voices, dim=-1)  # of length 1: how far a step moves what is added depends on no backbone's scale
        rows = voices if index is None or len(voices) == 1 else voices[index]
        for follower in self._followers:
            assert isinstance(follower, Given)
            follower.told(rows)

    def save(self, backbone: Backbone, folder: Path) -> None:
        if self.where is not None:
            self.where.save(folder)


class Added(VoiceEmbedding):
    """A learnt projection of the voice is added to every position."""

    def follower(self, name: str, width: int) -> Given:
        return AddedTo(name, nn.Linear(self.voice_size, width))


class Joined(VoiceEmbedding):
    """The voice is put beside every position and a learnt projection of both is added to it."""

    def follower(self, name: str, width: int) -> Given:
        return JoinedTo(name, nn.Linear(width + self.voice_size, width))
