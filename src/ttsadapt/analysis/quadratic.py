"""Half of d^T F d for a diagonal F, differentiable in the change d, at the price of a few passes over the weights.

The gradient is F d and is made where the value is, piece by piece while a piece is in the cache, so autograd keeps no copy of the
change. A low-rank change scale * B A is never made as a whole.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ttsadapt.analysis.information import Factored, Information

PIECE = 1 << 16
"""numbers worked on at a time by a CPU: a quarter MiB, so that the pieces of all operands stay in its cache"""


def dense(information: Sequence[Information], starts: Sequence[Tensor | None], now: Sequence[Tensor]) -> Tensor:
    """() 1/2 sum F (now - start)^2 over weights of any shape; a start of None is 0."""
    return _Dense.apply(information, starts, *now)


def low_rank(information: Sequence[Information], scales: Sequence[float], down: Sequence[Tensor], up: Sequence[Tensor]) -> Tensor:
    """() 1/2 sum F (scale * up @ down)^2 over layers; down (rank, rest), up (out, rank)."""
    layers = list(zip(information, scales, down, up))
    factored = [_factored(i, s, a, b) for i, s, a, b in layers if isinstance(i, Factored)]
    whole = [layer for layer in layers if not isinstance(layer[0], Factored)]
    if whole:
        factored.append(_LowRank.apply([w[0] for w in whole], [w[1] for w in whole], *(t for w in whole for t in w[2:])))
    return torch.stack(factored).sum()


def _factored(information: Factored, scale: float, down: Tensor, up: Tensor) -> Tensor:
    """With F = r c^T the sum is <B^T diag(r) B, A diag(c) A^T>: two (rank, rank) matrices, and nothing of the weight's size."""
    down, up = down.float(), up.float()
    return scale**2 / 2 * ((up.T * information.scaled_rows @ up) * (down * information.columns @ down.T)).sum()


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, information: Sequence[Information], starts: Sequence[Tensor | None], *now: Tensor) -> Tensor:
        total = torch.zeros((), device=now[0].device)
        ctx.gradients = []
        for held, start, weight in zip(information, starts, now):
            matrix = _matrix(weight)
            gradient = torch.empty_like(matrix, dtype=torch.float32, memory_format=torch.contiguous_format)
            for a, b in _pieces(matrix):
                change = matrix[a:b].float() if start is None else matrix[a:b].float() - _matrix(start)[a:b]
                torch.mul(change, held.chunk(a, b), out=gradient[a:b])
                total += torch.dot(change.flatten(), gradient[a:b].flatten())
            ctx.gradients.append(gradient.view(weight.shape))
        ctx.kinds = [weight.dtype for weight in now]
        return total / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_scaled(ctx, outer)


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, information: Sequence[Information], scales: Sequence[float], *factors: Tensor) -> Tensor:
        total = torch.zeros((), device=factors[0].device)
        ctx.gradients = []
        for held, scale, down, up in zip(information, scales, factors[::2], factors[1::2]):
            a, b = down.float(), up.float()
            of_down, of_up = torch.zeros_like(a), torch.empty_like(b)
            for first, last in _pieces(b, width=a.shape[1]):
                change = torch.mm(b[first:last], a)
                gradient = change * held.chunk(first, last)
                total += scale**2 * torch.dot(change.flatten(), gradient.flatten())
                torch.mm(gradient, a.T, out=of_up[first:last])
                of_down.addmm_(b[first:last].T, gradient)
            ctx.gradients += [of_down.mul_(scale**2), of_up.mul_(scale**2)]
        ctx.kinds = [factor.dtype for factor in factors]
        return total / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_scaled(ctx, outer)


def _scaled(ctx: Any, outer: Tensor) -> list[Tensor]:
    """The gradients times what comes from above, in place: they are needed once."""
    if ctx.gradients is None:
        raise RuntimeError("the gradient of a penalty was given away by the first backward pass: compute the penalty again")
    gradients, ctx.gradients = ctx.gradients, None
    torch._foreach_mul_(gradients, outer)
    return [g.to(kind) for g, kind in zip(gradients, ctx.kinds)]


def _matrix(weight: Tensor) -> Tensor:
    """(out, rest); a vector is (out, 1)."""
    return weight.detach().reshape(len(weight), -1) if weight.dim() > 1 else weight.detach().reshape(-1, 1)


def _pieces(matrix: Tensor, width: int | None = None) -> list[tuple[int, int]]:
    """Rows that are worked on together: all at once where starting a kernel is what takes time."""
    rows = len(matrix)
    step = max(1, PIECE // (width or matrix.shape[1])) if matrix.device.type == "cpu" else max(rows, 1)
    return [(a, min(a + step, rows)) for a in range(0, rows, step)]
