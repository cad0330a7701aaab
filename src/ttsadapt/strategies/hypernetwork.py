"""The hypernetwork of HyperTTS (Li et al. 2024, section 3.3): from a voice and a layer to the weights of an adapter.

Linear maps throughout, but for one ReLU: with a source of 8 numbers every adapter is a sum of 8 fixed ones. Names and shapes lead to
those of the authors' code (declare-lab/HyperTTS, model/adapters): `authors_name`.
"""

import re
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.strategies.bottleneck import INITIAL, Weights, same

Applied = Callable[[Tensor], Tensor]
"""(B, T, C) -> (B, T, C)"""


class NoNorm(nn.Module):
    """In the place of a norm that is not wanted."""

    def forward(self, source: Tensor) -> Applied:
        return same


class PlainNorm(nn.Module):
    """LayerNorm with weights of its own, shared by all voices and layers of a hypernetwork."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, source: Tensor) -> Applied:
        return self.norm


class ConditionalNorm(nn.Module):
    """LayerNorm whose scale and shift are made from the source, as the rest is. As in the authors' code the scale starts near 0, not 1."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Linear(source, width, bias=False), nn.Linear(source, width, bias=False)
        for layer in (self.weight, self.bias):
            nn.init.normal_(layer.weight, std=INITIAL)

    def forward(self, source: Tensor) -> Applied:
        """(S, source) of the rows, or of one voice for all of them."""
        weight, bias = self.weight(source)[:, None], self.bias(source)[:, None]  # (S, 1, C)
        return lambda x: F.layer_norm(x, x.shape[-1:]) * weight + bias


class Sampler(nn.Module):
    """A source (S, N) -> a weight (S, rows, columns) and a bias (S, rows). Nothing is drawn, whatever the authors call it."""

    def __init__(self, source: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        # Column by column in memory: the gradient of so many rows from so few numbers is then a product along, not across, its rows.
        self.weight = nn.Parameter(torch.empty(source, rows * columns).normal_(std=INITIAL).T)
        self.bias = nn.Parameter(torch.empty(rows, source).normal_(std=INITIAL))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        return (source @ self.weight.T).unflatten(-1, (self.rows, self.columns)), source @ self.bias.T


class Hypernetwork(nn.Module):
    """Makes the adapters of `layers` layers of one width, from vectors of voices and what it learns about each layer."""

    def __init__(
        self,
        width: int,
        layers: int,
        voice: int,
        bottleneck: int = 32,
        source: int = 8,
        speaker_width: int | None = 64,
        layer_width: int | None = 64,
        depth: int = 1,
        norm_before: Callable[[int, int], nn.Module] | None = None,
        norm_after: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        """`width` of what is adapted, `voice` of the vectors. `source`: what the weights are made from (ds in the paper).

        `speaker_width`, `layer_width`: of the projected voice and of the layer's embedding; None leaves it out. `depth`: linear maps
        with a ReLU between both and the source. Norms are called with (width, source).
        """
        super().__init__()
        self.speaker = nn.Linear(voice, speaker_width) if speaker_width else None
        self.layers = nn.ParameterList(nn.Parameter(torch.randn(layer_width)) for _ in range(layers) if layer_width)
        self.count = layers
        sizes = [(speaker_width or 0) + (layer_width or 0), *[source] * depth]
        self.source = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        for linear in self.source:
            nn.init.normal_(linear.get_parameter("weight"), std=INITIAL)
        self.down, self.up = Sampler(source, bottleneck, width), Sampler(source, width, bottleneck)
        self.norm_before = norm_before(width, source) if norm_before else NoNorm()
        self.norm_after = norm_after(width, source) if norm_after else NoNorm()

    def sources(self, voices: Tensor) -> Tensor:
        """(S, E) -> (layers, S, source); one for all voices (layers, 1, source) where no voice is looked at."""
        count = 1 if self.speaker is None else len(voices)
        parts = [] if self.speaker is None else [self.speaker(voices).expand(self.count, -1, -1)]
        parts += [torch.stack([*self.layers])[:, None].expand(-1, count, -1)] if len(self.layers) else []
        x = torch.cat(parts, -1)
        for linear in self.source:
            x = linear(x).relu()
        return x

    def forward(self, voices: Tensor, index: Tensor | None = None) -> list[tuple[Weights, Applied, Applied]]:
        """(S, E) distinct voices, (B,) the voice of each row (None: row s is in voice s) -> each layer's weights and norms."""
        return [self._layer(source, index) for source in self.sources(voices).unbind(0)]

    def _layer(self, source: Tensor, index: Tensor | None) -> tuple[Weights, Applied, Applied]:
        weights = Weights(*self.down(source), *self.up(source))
        if index is not None and len(source) > 1:  # made once a voice, then laid out for the rows
            weights, source = Weights(*(part.index_select(0, index) for part in weights)), source.index_select(0, index)
        return weights, self.norm_before(source), self.norm_after(source)


_CONTROLLER, _ADAPTER = "hypernet_source_controller", "hypernet"
_NAMES = (
    (r"speaker\.(weight|bias)", rf"{_CONTROLLER}.spk_emb_projector.\1"),
    (r"layers\.(\d+)", rf"{_CONTROLLER}.layer_id_embeddings.\1"),
    (r"source\.0\.weight", rf"{_CONTROLLER}.source_embedding_MLP.0.weight"),
    (r"(down|up)\.(weight|bias)", rf"{_ADAPTER}.meta_\1_sampler.\2_generator.0.weight"),
)
_GROUPS = {"duration": "variance_adaptor.duration_predictor"}


def authors_name(group: str, name: str) -> str | None:
    """A parameter of a group's hypernetwork as the authors call it; None for what they have no name for."""
    for ours, theirs in _NAMES:
        if match := re.fullmatch(ours, name):
            return f"{_GROUPS.get(group, group)}.{match.expand(theirs)}"
    return None
