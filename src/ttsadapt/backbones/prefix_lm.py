"""The Transformer that VALL-E and GPT-SoVITS share: text that sees all of itself, then audio that sees all text and its past.

Query, key, value and output are linears of their own, so that an adapter can take the place of each (an adapter on
`nn.MultiheadAttention` gets no gradient, and in eval mode its fast path reads the bare weights). The authors' files hold
`in_proj_weight` and `in_proj_bias`: `packed` says where our linears stand in them.
"""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.decoding import KeyValues
from ttsadapt.backbones.official import Place


class Attention(nn.Module):
    """Multi-head attention, optionally with a cache of what came before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        """(B, T, C); `mask` broadcasts to (B, H, T, S), true where a query may look."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        if cache is not None:
            k, v = cache.append(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, C / H)
        return self.out(y.transpose(1, 2).flatten(2))


class Norm(nn.LayerNorm):
    """LayerNorm that takes no notice of a condition (VALL-E's adaptive norm does)."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Block(nn.Module):
    """Attention and a ReLU feed-forward, each with a residual; norms before them (VALL-E) or after (GPT-SoVITS)."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.1,
        norm_first: bool = True,
        norm: Callable[[int], nn.Module] = Norm,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1, self.norm2 = norm(width), norm(width)
        self.dropout, self.feed_dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor | None = None, cache: KeyValues | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.norm1(x, condition), mask, cache))
            return x + self._feed(self.norm2(x, condition))
        x = self.norm1(x + self.dropout(self.self_attn(x, mask, cache)), condition)
        return self.norm2(x + self._feed(x), condition)

    def _feed(self, x: Tensor) -> Tensor:
        return self.feed_dropout(self.linear2(self.dropout(self.linear1(x).relu())))


class SinePosition(nn.Module):
    """x + alpha * sinusoid, interleaved sines and cosines, without a scale on x; dropout after it."""

    def __init__(self, width: int, dropout: float = 0.1, trained: bool = True) -> None:
        """`trained`: whether alpha gets a gradient; it is in the files of either kind."""
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(dropout)
        self.width, self.trained = width, trained

    def forward(self, x: Tensor, start: int | Tensor = 0, positions: Tensor | None = None) -> Tensor:
        """(B, T, C) at `positions` (B, T), or at `start`, an int or (B,), and after it."""
        if positions is None:
            begin = start if isinstance(start, int) else start[:, None]
            positions = torch.arange(x.shape[1], device=x.device) + begin
        alpha = self.alpha if self.trained else self.alpha.detach()
        return self.dropout(x + alpha * interleaved(positions, self.width).to(x.dtype))


def interleaved(position: Tensor, width: int) -> Tensor:
    """(...,) positions -> (..., width): sine, cosine, sine ... of wavelengths from 2 pi to 10000 * 2 pi."""
    rates = torch.exp(torch.arange(0, width, 2, device=position.device) * (-math.log(10000.0) / width))
    angles = position[..., None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def prefix_mask(text: Tensor, audio: Tensor) -> Tensor:
    """Which position sees which: (B, 1, T + S, T + S), where text (B, T) and audio (B, S) are bool, true where there is something.

    Text sees text; audio sees text and the audio up to itself. Padding sees itself only, so that no row of a softmax is empty.
    """
    device, (t, s) = text.device, (text.shape[1], audio.shape[1])
    real = torch.cat([text, audio], 1)  # (B, T + S)
    index = torch.arange(t + s, device=device)
    allowed = (index[None] < t) | ((index[:, None] >= t) & (index[None] <= index[:, None]))
    seen = allowed & real[:, None, :]
    return (seen | torch.eye(t + s, dtype=torch.bool, device=device))[:, None]


_LINEARS = {"query": 0, "key": 1, "value": 2}


def packed(name: str) -> Place:
    """`....self_attn.query.weight` -> rows 0 of 3 of `....self_attn.in_proj_weight`; `.out` is called `.out_proj` there."""
    head, dot, kind = name.rpartition(".")
    layer, _, linear = head.rpartition(".")
    if layer.endswith("self_attn") and linear in _LINEARS:
        return Place(f"{layer}.in_proj_{kind}", _LINEARS[linear], len(_LINEARS))
    if layer.endswith("self_attn") and linear == "out":
        return Place(f"{layer}.out_proj{dot}{kind}")
    return Place(name)


def caches(blocks: Iterable[nn.Module]) -> list[KeyValues]:
    """An empty cache for each block."""
    return [KeyValues() for _ in blocks]
