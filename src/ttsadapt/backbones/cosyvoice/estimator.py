"""What the velocity estimators of all versions have in common."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Slot


class Estimator(nn.Module, ABC):
    """(noisy mel, conditions, flow time) -> velocity."""

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Blocks of one rate and width, from input to output; each gives (B, T', C)."""

    @property
    @abstractmethod
    def slot(self) -> Slot:
        """The feed-forwards that an adapter may follow; names in this module."""

    @abstractmethod
    def block_mask(self, mask: Tensor) -> Tensor:
        """(B, T) bool of the mel -> (B, T') of `blocks`."""

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, time: Tensor, voice: Tensor, prompt: Tensor, streaming: Tensor) -> Tensor:
        """(B, T, n_mels) x, mu, prompt; (B, T) bool mask; (B, n_mels) voice; (B,) time and streaming (bool) -> (B, T, n_mels).

        What comes out at padding means nothing.
        """


def time_sines(time: Tensor, size: int) -> Tensor:
    """(B,) in [0, 1] -> (B, size): sines, then cosines, of 1000 t at wavelengths from 2 pi to 10000 * 2 pi."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=time.device) * -(math.log(10000.0) / (half - 1)))
    angles = 1000 * time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
