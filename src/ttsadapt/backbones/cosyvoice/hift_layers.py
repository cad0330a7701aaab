"""Convolutions of HiFT. All are (B, C, T)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pad = Literal["same", "left", "right"]
"""where the zeros go that keep the length: around, before (causal) or behind (looking ahead)"""


class Normed(nn.Module):
    """Weight normalisation (Salimans & Kingma 2016): weight = scale * direction / |direction|, row by row.

    As parameters of its own, not as torch's parametrization, whose modules cannot be pickled and look like plain convolutions.
    """

    def __init__(self, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(*shape).normal_(std=0.01))
        self.scale = nn.Parameter(self.direction.detach().flatten(1).norm(dim=1)[:, None, None].clone())
        self.bias = nn.Parameter(torch.zeros(outputs))

    def weight(self, dtype: torch.dtype) -> Tensor:
        return (self.direction * (self.scale / self.direction.norm(dim=(1, 2), keepdim=True))).to(dtype)


class NormedConv(Normed):
    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, pad: Pad = "same") -> None:
        super().__init__((outputs, inputs, kernel), outputs)
        reach = (kernel - 1) * dilation
        self.dilation = dilation
        self.padding = {"same": (reach // 2, reach - reach // 2), "left": (reach, 0), "right": (0, reach)}[pad]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) -> (B, outputs, T), in x's precision."""
        return F.conv1d(F.pad(x, self.padding), self.weight(x.dtype), self.bias.to(x.dtype), dilation=self.dilation)


class Upsample(Normed):
    """`rate` times as many: a transposed convolution, or (causal) repetition and a convolution that looks back."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int, causal: bool) -> None:
        super().__init__((outputs, inputs, kernel) if causal else (inputs, outputs, kernel), outputs)
        self.rate, self.causal, self.padding = rate, causal, (kernel - rate) // 2

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(x.dtype)
        if not self.causal:
            return F.conv_transpose1d(x, weight, self.bias, self.rate, self.padding)
        return F.conv1d(F.pad(x.repeat_interleave(self.rate, -1), (weight.shape[2] - 1, 0)), weight, self.bias)


class Snake(nn.Module):
    """x + sin(a x)^2 / a, a of each channel (Ziyin et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + (alpha * x).sin().square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a residual (HiFi-GAN, appendix A.1, with Snake)."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int], causal: bool) -> None:
        super().__init__()
        pad: Pad = "left" if causal else "same"
        self.convs1 = nn.ModuleList(NormedConv(width, width, kernel, d, pad) for d in dilations)
        self.convs2 = nn.ModuleList(NormedConv(width, width, kernel, 1, pad) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(width) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(width) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second, before, between in zip(self.convs1, self.convs2, self.activations1, self.activations2):
            x = x + second(between(first(before(x))))
        return x
