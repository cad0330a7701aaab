"""Rehearsal: source utterances join the target's in every optimiser step."""

from typing import TYPE_CHECKING

import torch

from ttsadapt.data.buffers import Buffer, Reservoir
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Mix, Strategy, Study

if TYPE_CHECKING:
    from ttsadapt.data.features import FeatureSet


class Rehearsal(Strategy):
    """`share` of the frames of each optimiser step come from a buffer of source utterances, all of it before any comes again."""

    def __init__(self, share: float = 0.25, buffer: int | None = None, keep: Buffer | None = None) -> None:
        """`buffer`: utterances kept of the source's training split, chosen by `keep` (a reservoir's law by default); None keeps all."""
        super().__init__()
        check_share(share, "rehearsal")
        if buffer is not None and buffer < 1:
            raise ConfigError(f"strategy.rehearsal.buffer={buffer}: give the number of utterances to keep, or null for all")
        self.share, self.buffer, self.keep = share, buffer, keep or Reservoir()
        self._ids: list[str] = []

    def study(self, study: Study) -> None:
        """Choose on the untouched model."""
        source = study.source
        if not len(source):
            raise ConfigError(
                "strategy.rehearsal: the data has no source utterances to rehearse: give data a source, "
                "or take generative_rehearsal in its place, whose utterances the base speaks itself"
            )
        if self.buffer is None or self.buffer >= len(source):
            self._ids = list(source.ids)
        else:
            self._ids = sorted(self.keep.choose(source, self.buffer, study.backbone, study.generator))

    def mix(self, target: "FeatureSet", source: "FeatureSet", generator: torch.Generator) -> Mix:
        return Mix(self.share, self._ids)


def check_share(share: float, name: str) -> None:
    if not 0 < share < 1:
        raise ConfigError(f"strategy.{name}.share={share}: wants a share of the frames between 0 and 1, such as 0.25")
