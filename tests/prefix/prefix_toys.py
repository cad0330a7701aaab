"""A model of causal attention whose utterances may be padded anywhere, and ways in which its first blocks cannot be kept."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.toys import VOCABULARY, Toy, ToyFrontend
from ttsadapt.backbones.base import SOURCE, TARGET
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.module import AdaptationData
from ttsadapt.data.utterance import Utterance
from ttsadapt.heads import Categorical
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Mix, Study, generator

WIDTH = 16


def right(lengths: Tensor) -> Tensor:
    return torch.arange(int(lengths.max())) < lengths[:, None]


def left(lengths: Tensor) -> Tensor:
    return right(lengths).flip(1)


def between(lengths: Tensor) -> Tensor:
    """A third of each utterance, padding, the rest, padding."""
    first = lengths // 3
    return torch.cat([right(first), right(lengths - first)], 1)


class PadFrontend(ToyFrontend):
    def __init__(self, real=right, dropped: float = 0.0) -> None:
        self.real, self.dropped = real, dropped

    def collate(self, items):
        lengths = torch.tensor([len(item["tokens"]) for item in items])
        mask = self.real(lengths)
        tokens = torch.full(mask.shape, VOCABULARY)  # a row of its own for padding
        tokens[mask] = torch.cat([item["tokens"] for item in items])
        batch = {"tokens": tokens, "mask": mask, "lengths": lengths, "speaker": torch.zeros(len(items), 1)}
        if self.dropped:
            batch["heard"] = torch.rand(tokens.shape) >= self.dropped
        return batch


class AttentionBlock(nn.Module):
    def __init__(self, wrapped: bool) -> None:
        super().__init__()
        self.linear, self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.dropout, self.wrapped = nn.LayerNorm(WIDTH), nn.Dropout(0.3), wrapped

    def forward(self, x: Tensor, mask: Tensor):
        q, k, v = self.linear(self.norm(x)).chunk(3, -1)
        x = x + self.dropout(self.mix(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        x = x + self.out(x.tanh())
        return (x, None) if self.wrapped else x


class PadLM(Toy):
    """`skip`: the head also reads the first block. `noise`: dropout on what enters the blocks."""

    adaptable = ("layers.*.linear",)

    def __init__(self, frontend: PadFrontend, wrapped: bool = False, skip: bool = False, noise: float = 0.0, count: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frontend, self.skip, self.noise = frontend, skip, nn.Dropout(noise)
        self.embed = nn.Embedding(VOCABULARY + 1, WIDTH)
        self.layers = nn.ModuleList(AttentionBlock(wrapped) for _ in range(count))
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.computed = 0

    @property
    def blocks(self):
        return {"backbone": {str(i): b for i, b in enumerate(self.layers)}}

    def block_mask(self, batch, group):
        return batch["mask"]

    def forward(self, batch):
        mask, t = batch["mask"], batch["mask"].shape[1]
        seen = mask[:, None] & torch.ones(t, t, dtype=torch.bool).tril() | torch.eye(t, dtype=torch.bool)
        place = (mask.cumsum(1) - 1).clamp_min(0)
        x = self.embed(batch["tokens"]) + (place[..., None] / torch.arange(1, WIDTH + 1)).sin() * mask[..., None]
        if self.training and "heard" in batch:
            x = x * batch["heard"][..., None]
        x, early = self.noise(x), 0.0
        for i, layer in enumerate(self.layers):
            x = layer(x, seen)
            x = x[0] if layer.wrapped else x
            early = x if i == 0 else early
        x = x + early if self.skip else x
        states, tokens, rows = x[mask], batch["tokens"][mask], mask.nonzero()[:, 0]
        same = rows[1:] == rows[:-1]
        return {"tokens": Categorical(tokens[1:][same], rows[1:][same], "frames", hidden=states[:-1][same], project=self.head)}


def features(folder: Path, frontend: PadFrontend, name: str, first: int, count: int, origin: int) -> FeatureSet:
    utterances = [Utterance(f"u{i}", folder / "none.wav", "a text", "s0", "e0") for i in range(first, first + count)]
    made = Features(folder / name, frontend, utterances, name)
    if not made.done:
        made.produce()
    return FeatureSet(made.folder, frontend, utterances, origin)


def data_of(folder: Path, frontend: PadFrontend, rehearsal: bool = False, workers: int = 0) -> AdaptationData:
    train = features(folder, frontend, "target.train", 0, 20, TARGET)
    source = features(folder, frontend, "source.train", 40, 10, SOURCE)
    valid = {"target": features(folder, frontend, "target.valid", 60, 5, TARGET)}
    mix = Mix(0.3, list(source.ids)) if rehearsal else None
    return AdaptationData(train, source if rehearsal else None, valid, mix, 70, 0, workers=workers)


def learner_of(backbone: PadLM, data: AdaptationData, folder: Path, **strategies) -> Learner:
    def look(name: str) -> Study:
        return Study(backbone, data.train, data.train, folder, 0, generator(0, name))

    claims = adapt(backbone, strategies, look)
    return Learner(backbone, strategies, claims, lambda groups: torch.optim.AdamW(groups, lr=0.01), base_hash="b", valid_sets=("target",))
