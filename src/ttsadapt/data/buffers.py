"""Which source utterances are kept for rehearsal, when not all are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ttsadapt.analysis.fisher import resting
from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.data.features import FeatureSet


class Buffer(ABC):
    """A rule for what is kept."""

    @abstractmethod
    def choose(self, source: FeatureSet, size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        """Ids of `size` utterances of the source, or of all when it has fewer. `backbone` is untouched."""


class Reservoir(Buffer):
    """Uniform over all utterances, in one pass over a stream of unknown length (algorithm R, Vitter 1985)."""

    def choose(self, source: FeatureSet, size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        kept: list[str] = []
        for seen, utterance in enumerate(source.ids):
            if seen < size:
                kept.append(utterance)
            elif (place := int(torch.randint(seen + 1, (1,), generator=generator))) < size:
                kept[place] = utterance
        return kept


class Balanced(Buffer):
    """As many of every speaker in every emotion as there are, whatever their shares of the source."""

    def choose(self, source: FeatureSet, size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        cells = {cell: self.ordered(source, ids, len(ids), backbone, generator) for cell, ids in self._cells(source, generator).items()}
        rounds = [ids[k] for k in range(max(map(len, cells.values()))) for ids in cells.values() if k < len(ids)]
        return rounds[:size]

    def ordered(self, source: FeatureSet, ids: Sequence[str], size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        """The utterances of one speaker in one emotion: which is kept first."""
        return [ids[k] for k in torch.randperm(len(ids), generator=generator).tolist()]

    def _cells(self, source: FeatureSet, generator: torch.Generator) -> dict[tuple[str, str], list[str]]:
        """In an order drawn at random, so that it is not always the same ones that go short."""
        cells: dict[tuple[str, str], list[str]] = {}
        for i in source.ids:
            cells.setdefault((source.utterances[i].speaker, source.utterances[i].emotion), []).append(i)
        names = sorted(cells)
        return {names[k]: cells[names[k]] for k in torch.randperm(len(names), generator=generator).tolist()}


class Herding(Balanced):
    """Balanced; of every speaker in every emotion, those whose mean stays nearest to that of all (iCaRL, Rebuffi 2017, algorithm 4).

    An utterance is the mean over its speech of what the last block of the largest group gives out, of length 1: the model's own
    view of it, at one forward pass over the source.
    """

    def choose(self, source: FeatureSet, size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        self._described = described(source, backbone)
        return super().choose(source, size, backbone, generator)

    def ordered(self, source: FeatureSet, ids: Sequence[str], size: int, backbone: Backbone, generator: torch.Generator) -> list[str]:
        chosen = herded(torch.stack([self._described[i] for i in ids]), size)
        return [ids[k] for k in chosen]


def herded(features: Tensor, size: int) -> list[int]:
    """(N, C) -> `size` rows, each the one that brings the mean of those chosen so far nearest to the mean of all."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    left = torch.ones(len(features), dtype=torch.bool)
    chosen: list[int] = []
    for k in range(min(size, len(features))):
        distance = ((total + features) / (k + 1) - mean).norm(dim=1).masked_fill(~left, float("inf"))
        best = int(distance.argmin())
        chosen.append(best)
        left[best], total = False, total + features[best]
    return chosen


@torch.no_grad()
def described(source: FeatureSet, backbone: Backbone, frames: int = 4000) -> dict[str, Tensor]:
    """{utterance: (C,)} means over speech positions of the last block of the largest group, of length 1."""
    groups, device = backbone.blocks, next(backbone.parameters()).device
    group = max(groups, key=lambda g: (len(groups[g]), list(groups).index(g)))
    heard: list[Tensor] = []
    *_, block = groups[group].values()
    handle = block.register_forward_hook(lambda m, i, out: heard.append(out if isinstance(out, Tensor) else out[0]))
    vectors: dict[str, Tensor] = {}
    try:
        with resting(backbone):
            for batch in source.batches(frames):
                batch = to_device(batch, device)
                heard.clear()
                backbone(batch)
                mask = backbone.block_mask(batch, group).to(heard[-1])[..., None]
                means = (heard[-1] * mask).sum(1) / mask.sum(1).clamp_min(1)
                vectors |= dict(zip(batch["ids"], torch.nn.functional.normalize(means.float(), dim=-1).cpu()))
    finally:
        handle.remove()
    return vectors
