"""Layers of the U-Net. Everything is (B, T, C), a mask (B, T) bool; weights are named as the authors name them."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.cosyvoice.estimator import time_sines


class TimeEmbedding(nn.Module):
    """Flow time in [0, 1] -> a vector: sinusoids of 1000 t, then two linears."""

    def __init__(self, sines: int, width: int) -> None:
        super().__init__()
        self.sines = sines
        self.linear_1, self.linear_2 = nn.Linear(sines, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, width)"""
        return self.linear_2(F.silu(self.linear_1(time_sines(time, self.sines).to(self.linear_1.weight.dtype))))


class MaskedGroupNorm(nn.Module):
    """Group normalisation of (B, T, C) over real positions, so that an utterance comes out the same in any company.

    `leaky`: over padding too, as the authors' code does.
    """

    leaky = False

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.leaky:
            return F.group_norm(x.mT, self.groups, self.weight, self.bias).mT
        real = mask[:, :, None, None]
        grouped = x.unflatten(-1, (self.groups, -1))  # (B, T, G, C / G)
        count = (mask.sum(1) * grouped.shape[-1])[:, None, None, None].clamp_min(1)
        centred = (grouped - (grouped * real).sum((1, 3), keepdim=True) / count) * real
        variance = centred.square().sum((1, 3), keepdim=True) / count
        return (centred * (variance + 1e-5).rsqrt()).flatten(2) * self.weight + self.bias


class ConvBlock(nn.Module):
    """Convolution of three, norm, Mish; zero at padding. Causal: it looks back only, and a LayerNorm takes the GroupNorm's place."""

    def __init__(self, inputs: int, width: int, causal: bool, groups: int = 8) -> None:
        super().__init__()
        self.causal = causal
        norm: nn.Module = nn.LayerNorm(width) if causal else MaskedGroupNorm(groups, width)
        # Theirs is a sequence of conv, [transpose,] norm, ...: the names are the places in it.
        self.block = nn.ModuleDict({"0": nn.Conv1d(inputs, width, 3), "2" if causal else "1": norm})

    @property
    def conv(self) -> nn.Conv1d:
        return cast(nn.Conv1d, self.block["0"])

    @property
    def norm(self) -> nn.Module:
        return self.block["2" if self.causal else "1"]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None]
        x = convolved(self.conv, x * real, self.causal)
        x = self.norm(x) if self.causal else self.norm(x, mask)
        return F.mish(x) * real


def convolved(conv: nn.Module, x: Tensor, causal: bool) -> Tensor:
    """(B, T, C) through a convolution of three: padded here, so that an adapter around it sees the same input as it."""
    return conv(F.pad(x.mT, (2, 0) if causal else (1, 1))).mT


class ResidualBlock(nn.Module):
    """Two convolution blocks around an addition of the flow time, and a pointwise shortcut."""

    def __init__(self, inputs: int, width: int, time_width: int, causal: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_width, width))
        self.block1, self.block2 = ConvBlock(inputs, width, causal), ConvBlock(width, width, causal)
        self.res_conv = nn.Conv1d(inputs, width, 1)

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        y = self.block1(x, mask) + self.mlp(time)[:, None]
        return self.block2(y, mask) + self.res_conv((x * mask[..., None]).mT).mT


class Attention(nn.Module):
    """Self-attention of `heads` times `head` channels; no positions: the convolutions know where they are."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_k = nn.Linear(width, heads * head, bias=False)
        self.to_v = nn.Linear(width, heads * head, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head, width)])

    @property
    def out(self) -> nn.Linear:
        return cast(nn.Linear, self.to_out[0])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.out(y.transpose(1, 2).flatten(2))


class GELULinear(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(GELULinear(width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width))

    @property
    def out(self) -> nn.Linear:
        return cast(nn.Linear, self.net[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, head: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1, self.ff = Attention(width, heads, head), FeedForward(width, 4 * width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attn1(self.norm1(x), mask))
        return x + self.ff(self.norm3(x))


class Stage(nn.ModuleList):
    """[residual block, Transformer blocks, what leads to the next stage (not in the middle)]."""

    def __init__(self, residual: nn.Module, transformers: Sequence[nn.Module], onward: nn.Module | None = None) -> None:
        super().__init__([residual, nn.ModuleList(transformers), *([onward] if onward is not None else [])])

    @property
    def onward(self) -> nn.Module:
        return self[2]

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor, time: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, width); `seen` (B, 1 or T, T) for the attention."""
        x = self[0](x, mask, time)
        for block in self[1].children():
            x = block(x, seen)
        return x


class Resample(nn.Module):
    """Half or double the rate."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(width, width, 4, 2, 1) if up else nn.Conv1d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mT).mT
