"""What stands behind modules: bottlenecks with weights of their own, or with weights that another network makes for each voice."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        self._norms: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = (same, same)

    def __getstate__(self) -> dict:
        """Weights of a pass belong to its graph, which cannot be copied."""
        return self.__dict__ | {"_weights": None, "_norms": (same, same)}

    def told(self, weights: Weights, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        """`weights` of each row of the coming batch, or of one voice for whatever rows there will be."""
        self._weights, self._norms = weights, (before, after)

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        if self._weights is None:
            raise RuntimeError(f"{self.name}: nobody has said whose voices these are")
        before, after = self._norms
        if before is after is same:
            return bottleneck(x, self._weights, residual=True)
        return x + after(bottleneck(before(x), self._weights))


def bottleneck(x: Tensor, weights: Weights, residual: bool = False) -> Tensor:
    """(B, T, C) -> (B, T, C), all utterances in one product; S is B, or 1. With `residual` x is added."""
    down, down_bias, up, up_bias = weights
    if len(down) == 1:
        made = F.linear(F.linear(x, down[0], down_bias[0]).relu(), up[0], up_bias[0])
        return x + made if residual else made
    if len(down) != len(x):
        raise RuntimeError(f"a batch of {len(x)} rows met the adapters of {len(down)}")
    if torch.is_autocast_enabled(x.device.type):  # casts one product at a time, and leaves the residual's precision alone
        hidden = torch.baddbmm(down_bias[:, None], x, down.mT).relu()
        made = torch.baddbmm(up_bias[:, None], hidden, up.mT)
        return x + made if residual else made
    made = _Batched.apply(x, *weights, residual)  # type: ignore[no-untyped-call]
    return made


class _Batched(torch.autograd.Function):
    """U relu(D x + d) + u (+ x), one D and U a row.

    Autograd's own gradients of the weights would be transposed copies, and the residual two more passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor, residual: bool) -> Tensor:
        hidden = torch.baddbmm(down_bias[:, None], x, down.mT).relu_()  # (B, T, H)
        ctx.save_for_backward(x, hidden, down, up)
        ctx.residual = residual
        return (torch.baddbmm(x, hidden, up.mT) if residual else torch.bmm(hidden, up.mT)).add_(up_bias[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, down, up = ctx.saved_tensors
        inner = torch.ops.aten.threshold_backward(torch.bmm(pull, up), hidden, 0)  # (B, T, H)
        below = None
        if ctx.needs_input_grad[0]:
            below = torch.baddbmm(pull, inner, down) if ctx.residual else torch.bmm(inner, down)
        return below, torch.bmm(inner.mT, x), inner.sum(1), torch.bmm(pull.mT, hidden), pull.sum(1), None


def same(x: Tensor) -> Tensor:
    return x
