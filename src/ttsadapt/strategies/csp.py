"""Characteristic-specific partial fine-tuning (CSP-FT, arXiv 2501.14273): only the blocks that carry most and least train."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from torch import nn

from ttsadapt.analysis.layers import Ranking, Settings, largest_group, rank
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.parameters import bare_parameters
from ttsadapt.strategies.base import Strategy, Study


class CSP(Strategy):
    """Blocks are ranked once, on the untouched model, by what emotion and speaker probes read off them (sections 2.2, 2.3).

    The highest already holds most of the characteristic and the lowest has most room to learn it. Embeddings, output heads
    and all other blocks stay as they are.
    """

    def __init__(
        self,
        choose: list[str | int] | None = None,
        group: str | None = None,
        utterances: int = 400,
        epochs: int = 16,
        probe_lr: float = 3e-3,
        seed: int | None = None,
        lr: float | None = None,
    ) -> None:
        """`choose`: ranks of the blocks that train ("highest", "lowest", 1: the second highest ...); None: highest and lowest.

        `group` of blocks: None is the largest. `seed` of the analysis: None is the run's.
        """
        super().__init__()
        self.choose, self.group, self.lr = list(choose or ("highest", "lowest")), group, lr
        self.utterances, self.epochs, self.probe_lr, self.seed = utterances, epochs, probe_lr, seed
        self.ranking: Ranking | None = None

    def study(self, study: Study) -> None:
        group = self.group or largest_group(study.backbone)
        available = len(study.backbone.blocks.get(group, {}))
        if 0 < available < len(self.choose):
            raise ConfigError(f"strategy.csp.choose={self.choose}: {group} has {available} blocks: choose fewer, or another group")
        seed = study.seed if self.seed is None else self.seed
        settings = Settings(group=group, utterances=self.utterances, epochs=self.epochs, lr=self.probe_lr, seed=seed)
        self.ranking = _shared(study, settings)
        self.ranking.chosen = list(dict.fromkeys(self.ranking.block(place) for place in self.choose))

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        """Every weight of the chosen blocks (attention, feed-forward, norms), but not those of adapters inside them."""
        assert self.ranking is not None, "study comes first"
        blocks = backbone.blocks[self.ranking.group]
        return [p for name in self.ranking.chosen for p in bare_parameters(blocks[name])]

    def save(self, backbone: Backbone, folder: Path) -> None:
        """`layers.json`: the weights of all blocks, how good the probes were, which blocks were chosen."""
        assert self.ranking is not None, "study comes first"
        write_json(folder / "layers.json", self.ranking.to_dict())


def _shared(study: Study, settings: Settings) -> Ranking:
    """From the cache, or computed and put there; of several processes one computes, the others wait."""
    path = study.cache / f"layers-{digest(asdict(settings))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write_json(path, rank(study.backbone, study.source, settings).to_dict())
    return Ranking.from_dict(read_json(path))
