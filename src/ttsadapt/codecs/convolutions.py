"""Parts that the fitted codecs share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each frame: what a frame becomes does not depend on how long its recording is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT  # (B, W, T)


class ResidualUnit(nn.Module):
    """A convolution over time after a norm, around which the input goes unchanged."""

    def __init__(self, width: int, kernel: int = 3) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.gelu(self.conv(self.norm(x))))  # (B, W, T)


def cut(frames: Tensor, start: int, length: int) -> Tensor:
    """(T, C) -> (length, C) from `start` on; a recording that ends earlier goes on with its last frame."""
    part = frames[start : start + length]
    return part if len(part) == length else torch.cat([part, part[-1:].expand(length - len(part), -1)])
