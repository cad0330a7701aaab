"""What stands behind modules: bottlenecks with weights of their own, or with weights that another network makes for each voice."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.adapters import Follower

INITIAL = 0.01
"""standard deviation of new weights: at first an adapter changes next to nothing (Houlsby et al. 2019, section 2.1)"""


class Weights(NamedTuple):
    """Of the bottleneck, one for each of S voices."""

    down: Tensor
    """(S, H, C)"""
    down_bias: Tensor
    """(S, H)"""
    up: Tensor
    """(S, C, H)"""
    up_bias: Tensor
    """(S, C)"""


class Bottleneck(Follower):
    """x + U relu(D x + d) + u (Houlsby et al. 2019; AdapterTTS of HyperTTS, section 4.2)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=INITIAL)
            nn.init.zeros_(layer.bias)

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        return x + self.up(self.down(x).relu())


class GeneratedBottleneck(Follower):
    """A bottleneck in every utterance's own weights, which `told` leaves here before each pass."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._weights: Weights | None = None
        self._norms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = (_same, _same)

    def __getstate__(self) -> dict:
        """Weights of a pass belong to its graph, which cannot be copied."""
        return self.__dict__ | {"_weights": None, "_norms": (_same, _same)}

    def told(self, weights: Weights, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        """`weights` of each row of the coming batch, or of one voice for whatever rows there will be."""
        self._weights, self._norms = weights, (before, after)

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        if self._weights is None:
            raise RuntimeError(f"{self.name}: nobody has said whose voices these are")
        before, after = self._norms
        return x + after(bottleneck(before(x), self._weights))


def bottleneck(x: Tensor, weights: Weights) -> Tensor:
    """(B, T, C) -> (B, T, C), all utterances in one product; S is B, or 1."""
    down, down_bias, up, up_bias = weights
    if len(down) == 1:
        return F.linear(F.linear(x, down[0], down_bias[0]).relu(), up[0], up_bias[0])
    if len(down) != len(x):
        raise RuntimeError(f"a batch of {len(x)} rows met the adapters of {len(down)}")
    hidden = torch.baddbmm(down_bias[:, None], x, down.mT).relu()  # (B, T, H)
    return torch.baddbmm(up_bias[:, None], hidden, up.mT)


def _same(x: Tensor) -> Tensor:
    return x
