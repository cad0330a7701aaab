"""LoRA of every speaker's own (Hu et al. 2021, one pair a voice): many voices in one batch, none in another's way."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ttsadapt.adapters import Follower
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.where.base import Where
from ttsadapt.where.inside import layers as layers_inside


class Pairs(Follower):
    """y + scale * B_s A_s x, s the voice of the row."""

    def __init__(self, layer: nn.Linear, voices: int, rank: int, scale: float) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(voices, rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(voices, layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A.view(-1, layer.in_features), a=5**0.5)  # as peft's
        self.scale = scale
        self._index = torch.zeros(0, dtype=torch.long)

    def __getstate__(self) -> dict:
        """A pass's voices are nobody's after it."""
        return self.__dict__ | {"_index": torch.zeros(0, dtype=torch.long)}

    def told(self, index: Tensor) -> None:
        """(B,) the voice of each row, -1 for none of them, or (1,) for whatever rows there will be."""
        self._index = index

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        index = self._index.clamp_min(0)
        scale = self.scale * (self._index >= 0)[:, None, None]
        if len(index) == 1:
            return x + scale[0] * (given @ self.A[index[0]].T @ self.B[index[0]].T)
        if given.dim() != 3 or len(given) != len(index):
            raise RuntimeError(f"rows {tuple(given.shape)} met the voices of {len(index)}")
        return x + scale * torch.bmm(torch.bmm(given, self.A[index].mT), self.B[index].mT)


class SpeakerLoRA(Strategy):
    """A pair of low rank for each speaker of the learnt data, on the linear layers inside blocks. Other speakers get the base model.

    Layers outside of blocks are left alone: their rows need not be utterances.
    """

    def __init__(
        self, rank: int = 4, alpha: float = 8.0, layers: list[str] | None = None, where: Where | None = None, lr: float | None = None
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.layers, self.where, self.lr = rank, alpha, layers, where, lr
        self.pairs = nn.ModuleList()
        self.speakers: list[str] = []
        self._names: list[str] = []
        self._seed = 0

    def study(self, study: Study) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=study.generator))
        self.speakers = sorted({study.target.utterances[i].speaker for i in study.target.ids})
        if not self.speakers:
            raise DataError("strategy.speaker_lora: the data has no utterances to learn")
        if self.where is not None:
            self.where.study(study)
        blocks = (
            [(g, n) for g, of in study.backbone.blocks.items() for n in of] if self.where is None else self.where.blocks(study.backbone)
        )
        inside = layers_inside(study.backbone, blocks, self.layers)
        self._names = [name for name in inside if isinstance(study.backbone.get_submodule(name), nn.Linear)]
        if not self._names:
            raise ConfigError(
                "strategy.speaker_lora.layers: none of the layers inside these blocks is linear: choose other blocks or layers"
            )

    def attach(self, backbone: Backbone) -> None:
        with torch.random.fork_rng(devices=[]), next(backbone.parameters()).device:
            torch.manual_seed(self._seed)
            for name in self._names:
                layer = backbone.get_submodule(name)
                assert isinstance(layer, nn.Linear)
                pairs = Pairs(layer, len(self.speakers), self.rank, self.alpha / self.rank)
                pairs.hang(layer)
                self.pairs.append(pairs)

    def condition(self, batch: Batch) -> None:
        """A speaker without a pair is spoken by the untuned model."""
        index: Tensor = batch["voice_index"]
        names = [batch["voices"][i] for i in batch["voice_first"]]
        known = torch.tensor([self.speakers.index(name) if name in self.speakers else -1 for name in names], device=index.device)
        for pairs in self.pairs:
            assert isinstance(pairs, Pairs)
            pairs.told(known[index] if len(known) > 1 else known)

    def save(self, backbone: Backbone, folder: Path) -> None:
        if self.where is not None:
            self.where.save(folder)
