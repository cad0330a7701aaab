"""Two small backbones whose Fisher information can be written down, and a data set for them."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.base import SOURCE, Backbone, Frontend, Request
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.heads import Categorical, Continuous

VOCABULARY, WIDTH = 5, 6


class ToyFrontend(Frontend):
    """Random tokens and values, a function of the utterance's id; `label` is (emotion, speaker)."""

    def fit(self, utterances):
        pass

    def state(self):
        return {}

    def restore(self, state):
        pass

    def __call__(self, utterance):
        number = int(utterance.id[1:])
        g = torch.Generator().manual_seed(number)
        frames = 12 + number % 9
        label = torch.tensor([int(utterance.emotion[1:]), int(utterance.speaker[1:])])
        values = torch.randn(frames, 3, generator=g)
        return {"tokens": torch.randint(VOCABULARY, (frames,), generator=g), "values": values, "label": label}

    def lengths(self, features):
        return {"frames": len(features["tokens"])}

    def collate(self, items):
        lengths = torch.tensor([len(item["tokens"]) for item in items])
        tokens = nn.utils.rnn.pad_sequence([item["tokens"] for item in items], batch_first=True)
        values = nn.utils.rnn.pad_sequence([item["values"] for item in items], batch_first=True)
        label = torch.stack([item["label"] for item in items])
        return {"tokens": tokens, "values": values, "label": label, "lengths": lengths, "speaker": torch.zeros(len(items), 1)}

    def request(self, utterance):
        return Request(utterance.id, (), torch.zeros(1))

    def enroll(self, utterances):
        pass


class Toy(Backbone):
    """What both have in common; neither can speak."""

    sample_rate = 16000

    def __init__(self):
        super().__init__()
        self.frontend = ToyFrontend()

    def block_mask(self, batch, group):
        return torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]

    def synthesize(self, requests, progress=None):
        return [torch.zeros(1) for _ in requests]

    def resynthesize(self, audio):
        return audio


class Block(nn.Module):
    """(B, T, C) -> (B, T, C): a linear map and a causal convolution."""

    def __init__(self, width):
        super().__init__()
        self.linear, self.conv = nn.Linear(width, width), nn.Conv1d(width, width, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = F.pad(self.linear(x).tanh().transpose(1, 2), (1, 0))
        return (x + self.dropout(self.conv(h).transpose(1, 2).tanh()),)


class ToyLM(Toy):
    """Categorical: next tokens; two codebooks when weights for both are given. The embedding's table is tied to nothing."""

    adaptable = ("layers.*.linear", "layers.*.conv")

    def __init__(self, weights=(1.0,), tied=False):
        super().__init__()
        torch.manual_seed(0)
        self.head_weights = weights
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block(WIDTH) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, VOCABULARY) for _ in weights)
        if tied:
            self.heads[0].weight = self.embed.weight

    @property
    def blocks(self):
        return {"backbone": {str(i): b for i, b in enumerate(self.layers)}}

    def forward(self, batch):
        x = self.embed(batch["tokens"])
        for layer in self.layers:
            (x,) = layer(x)
        inside = self.block_mask(batch, "backbone")[:, 1:]
        hidden, target, row = x[:, :-1][inside], batch["tokens"][:, 1:][inside], inside.nonzero()[:, 0]
        return {
            f"codebook{i}": Categorical(target, row, "frames", weight, hidden=hidden, project=head)
            for i, (weight, head) in enumerate(zip(self.head_weights, self.heads))
        }


class ToyMel(Toy):
    """Continuous: values of three channels a frame, and one duration an utterance."""

    adaptable = ("layers.*.linear", "layers.*.conv")

    def __init__(self, norm=2, sigma=0.7, duration_weight=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.sigma, self.duration_weight = norm, sigma, duration_weight
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block(WIDTH) for _ in range(2))
        self.mel, self.duration = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 1)

    @property
    def blocks(self):
        return {"encoder": {"0": self.layers[0]}, "decoder": {"0": self.layers[1]}}

    def forward(self, batch):
        x = self.embed(batch["tokens"])
        for layer in self.layers:
            (x,) = layer(x)
        inside = self.block_mask(batch, "decoder")
        row = inside.nonzero()[:, 0]
        mel = Continuous(batch["values"][inside], row, "frames", value=self.mel(x)[inside], norm=self.norm, sigma=self.sigma)
        mean = (x * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
        heads = {"mel": mel}
        if self.duration_weight:
            rows = torch.arange(len(x))
            wanted = batch["lengths"].float()[:, None]
            heads["duration"] = Continuous(wanted, rows, "utterances", self.duration_weight, value=self.duration(mean))
        return heads


class Planted(Toy):
    """Four frozen blocks of noise; only block 2 knows the labels (a pattern in a few channels of every frame)."""

    def __init__(self, informed=2, channels=16, blocks=4):
        super().__init__()
        self.informed, self.channels = informed, channels
        self.layers = nn.ModuleList(nn.Identity() for _ in range(blocks))
        self.scale = nn.Parameter(torch.ones(()))
        g = torch.Generator().manual_seed(9)
        self.register_buffer("patterns", torch.randn(2, 8, channels, generator=g))

    @property
    def blocks(self):
        return {"few": {"0": self.layers[0]}, "main": {f"b{i}": b for i, b in enumerate(self.layers)}}

    def forward(self, batch):
        t = batch["tokens"].shape[1]
        for i, layer in enumerate(self.layers):
            noise = [torch.randn(t, self.channels, generator=torch.Generator().manual_seed(int(u[1:]) * 7 + i)) for u in batch["ids"]]
            x = torch.stack(noise) * self.scale
            if i == self.informed:
                x = x + (self.patterns[0, batch["label"][:, 0]] + self.patterns[1, batch["label"][:, 1]])[:, None]
            layer(x)
        return {}


def dataset(folder: Path, n: int = 24, emotions: int = 3, speakers: int = 4) -> FeatureSet:
    utterances = [Utterance(f"u{i}", folder / "none.wav", "a text", f"s{i // emotions % speakers}", f"e{i % emotions}") for i in range(n)]
    features = Features(folder / "features", ToyFrontend(), utterances, "toy")
    if not features.done:
        features.produce()
    return FeatureSet(features.folder, features.frontend, utterances, SOURCE)
