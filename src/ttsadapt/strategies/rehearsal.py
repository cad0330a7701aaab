"""Rehearsal: source utterances join the target's in every optimiser step."""

from typing import TYPE_CHECKING

import torch

from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Mix, Strategy

if TYPE_CHECKING:
    from ttsadapt.data.features import FeatureSet


class Rehearsal(Strategy):
    """`share` of the frames of each optimiser step come from a buffer of source utterances, drawn uniformly (a reservoir's law)."""

    def __init__(self, share: float = 0.25, buffer: int | None = None) -> None:
        """`buffer`: utterances kept of the source's training split; None keeps all."""
        super().__init__()
        if not 0 < share < 1:
            raise ConfigError(f"strategy.rehearsal.share={share}: wants a share of the frames between 0 and 1, such as 0.25")
        self.share, self.buffer = share, buffer

    def mix(self, target: "FeatureSet", source: "FeatureSet", generator: torch.Generator) -> Mix:
        if not len(source):
            raise ConfigError("strategy.rehearsal: the data has no source utterances to rehearse; drop rehearsal or give data a source")
        order = torch.randperm(len(source), generator=generator).tolist()[: self.buffer]
        return Mix(self.share, [source.ids[i] for i in sorted(order)])
