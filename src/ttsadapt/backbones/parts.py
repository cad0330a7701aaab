"""Parts of FastSpeech 2: feed-forward transformer blocks, variance predictors, length regulation, post-net.

`mask` is (B, T) bool, true where there is something. Every part zeroes what its next convolution would otherwise read from
padding, so an utterance comes out the same alone and in any company.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head attention from four plain linears, so that an adapter can take the place of each."""

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # (B, H, T, C / H)
        return self.out(y.transpose(1, 2).flatten(2))


class ConvFeedForward(nn.Module):
    """Conv1d -> ReLU -> pointwise Conv1d (Ren et al. 2019, section 3.1)."""

    def __init__(self, width: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(width, hidden, kernel, padding=kernel // 2)
        self.contract = nn.Conv1d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.expand(x.mT).relu()).mT


class FFTBlock(nn.Module):
    """Self-attention, then convolutions, each with residual and LayerNorm after it (post-LN)."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, bias)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn = ConvFeedForward(width, hidden, kernel)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout, self.ffn_dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None]
        x = self.attention_norm(x + self.dropout(self.attention(x, mask))) * real
        return self.ffn_norm(x + self.ffn_dropout(self.ffn(x))) * real  # (B, T, C)


class PositionTable(nn.Module):
    """Sinusoidal positions that a checkpoint brings along: sines at even, cosines at odd places."""

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width {width} is odd: sines and cosines alternate")
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = torch.arange(length)[:, None] * rates
        self.register_buffer("table", torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None])  # (1, length, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (1, T, C) for T up to `length`."""
        return self.table[:, : x.shape[1]]


class FFTStack(nn.Module):
    """Sinusoidal positions and a chain of FFT blocks."""

    def __init__(
        self,
        count: int,
        width: int,
        heads: int,
        hidden: int,
        kernel: int,
        dropout: float,
        bias: bool = True,
        positions: nn.Module | None = None,
    ) -> None:
        """`positions`: (B, T, C) -> what is added to it; None computes sinusoids of any length."""
        super().__init__()
        self.positions = positions
        self.blocks = nn.ModuleList(FFTBlock(width, heads, hidden, kernel, dropout, bias) for _ in range(count))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        where = sinusoids(x.shape[1], x.shape[2], x.device) if self.positions is None else self.positions(x)
        x = (x + where) * mask[..., None]
        for block in self.blocks:
            x = block(x, mask)
        return x


class VariancePredictor(nn.Module):
    """One number for every phone: convolutions with ReLU, LayerNorm and dropout, then a linear."""

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float, layers: int = 2, outputs: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        sizes = [width, *[hidden] * layers]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(sizes))
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(layers))  # apart, so that an adapter can follow each
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, outputs)

    def values(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, P, C) -> (B, P, outputs)."""
        for conv, activation, norm in zip(self.convs, self.activations, self.norms):
            x = self.dropout(norm(activation(conv((x * mask[..., None]).mT).mT)))
        return self.out(x)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.values(x, mask)[..., 0]  # (B, P)


class PlacedPredictor(VariancePredictor):
    """A variance predictor that is told where in the sequence it is, as loudly as it learns to listen."""

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float, outputs: int = 1, eps: float = 1e-12) -> None:
        super().__init__(width, hidden, kernel, dropout, outputs=outputs, eps=eps)
        self.position_gain = nn.Parameter(torch.ones(1))

    def values(self, x: Tensor, mask: Tensor) -> Tensor:
        places = sinusoids(x.shape[1] + 1, x.shape[2], x.device)[1:]  # counted from 1
        return super().values(x + self.position_gain * places, mask)


class PostNet(nn.Module):
    """A residual on the mel from five convolutions (Shen et al. 2018, section 2.2)."""

    def __init__(self, n_mels: int, hidden: int, kernel: int = 5, layers: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        sizes = [n_mels, *[hidden] * (layers - 1), n_mels]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:])
        self.dropout = nn.Dropout(dropout)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        x, real = mel.mT, mask[:, None]
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(x * real))
            x = self.dropout(x if i == len(self.convs) - 1 else x.tanh())
        return mel + x.mT


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(length, width): sines, then cosines, of wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5)."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / max(half - 1, 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[:, :width]


def sequence_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size) bool."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def regulate(x: Tensor, durations: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Repeat phone p of `x` (B, P, C) durations[b, p] times: (B, frames, C), and where in its phone each frame lies.

    The second value (B, frames) is the centre of the frame as a share of its phone, in (0, 1). Frames beyond the sum of the
    durations repeat the last phone: mask them. No value is read back from the device.
    """
    owner = owners(durations, frames)
    return repeated(x, owner), shares(durations, owner)


def owners(durations: Tensor, frames: int) -> Tensor:
    """(B, P) -> (B, frames): the phone that each frame belongs to; the last one beyond the sum of the durations."""
    at = torch.arange(frames, device=durations.device).expand(len(durations), -1).contiguous()
    return torch.searchsorted(durations.cumsum(1), at, right=True).clamp_max(durations.shape[1] - 1)


def shares(durations: Tensor, owner: Tensor) -> Tensor:
    """(B, P), (B, T) -> (B, T): centre of each frame as a share of its phone, in (0, 1)."""
    at, length = torch.arange(owner.shape[1], device=owner.device), durations.gather(1, owner)
    share = (at - durations.cumsum(1).gather(1, owner) + length + 0.5) / length.clamp_min(1)
    return share.clamp(0, 1)


def repeated(x: Tensor, owner: Tensor) -> Tensor:
    """(B, P, C), (B, T) -> (B, T, C): row owner[b, t] of x[b] for every frame."""
    flat = owner + torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, flat.shape)


def places(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the real positions of a padded batch lie: (N,) rows and (N,) places in their rows, in order.

    What `mask.nonzero()` gives, from lengths that the host knows: no accelerator is waited for.
    """
    counts = torch.tensor(list(lengths))
    row = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return row, torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a while; afterwards every module is back in the mode it was in, not all in one."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():  # not inference mode: what comes out may meet autograd later
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
