"""Sums over the logits of many positions, which never exist at once: chunk by chunk, the gradient made on the way.

What is wanted of the logits (the task's cross-entropy, divergences from teachers) is known before they are computed, so one pass
computes a chunk of them, reduces it to all the sums, turns it in place into the gradient of their total, and multiplies that back
onto hidden states (and onto the projection where that trains). Nothing of size (N, V) is kept, nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttsadapt.entropies import kl_and_pull

CHUNK = {"cpu": 6 << 20, "cuda": 128 << 20}
"""logits at a time: on a CPU as many as its caches and its allocator like, on a GPU enough to fill it"""


@dataclass(eq=False)
class Rows:
    """A projection onto some rows of a table: (N, D) -> (N, V). Sliced once, differentiated once."""

    weight: Tensor
    """(V, D)"""
    bias: Tensor | None = None
    """(V,)"""

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight, self.bias)


Project = Callable[[Tensor], Tensor]


class Reduction(Protocol):
    """Sums over positions, each with its factor inside."""

    @property
    def terms(self) -> int: ...

    def __call__(self, logits: Tensor, dim: int, part: slice, factors: Sequence[Tensor] | None, gradient: bool) -> Tensor:
        """Logits of positions `part`, float32, classes along `dim` -> (terms,) sums over them.

        With `gradient` the logits become the gradient of the sums' total, each times its entry of `factors` where given.
        """


def chunk(classes: int, device: torch.device, together: int = 1) -> int:
    """Positions at a time, a multiple of those that are projected together."""
    logits = CHUNK.get(device.type, CHUNK["cuda"])
    return max(1, logits // (max(classes, 1) * together)) * together


def reduced(hidden: Tensor, project: Project, reduction: Reduction, together: int = 1) -> tuple[Tensor, ...]:
    """`reduction.terms` tensors (), differentiable in `hidden` (N, D) and in what `project` holds.

    `together`: positions that are projected together, see `heads.Categorical`.
    """
    with torch.no_grad():
        classes = width(project, hidden, together)
    size, dtype = chunk(classes, hidden.device, together), autocast_dtype(hidden)
    if not torch.is_grad_enabled():
        return _sweep(projector(project, dtype, ()), hidden, reduction, size, None, False)[0].unbind()
    return _Reduced.apply(hidden, project, reduction, size, dtype, *_sources(project, hidden[:together]))


def width(project: Project, hidden: Tensor, together: int) -> int:
    """V: how many classes there are."""
    linear = as_rows(project)
    return len(linear.weight) if linear else project(hidden[:together]).shape[-1]


def autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    """That of autocast; None without. Half precision is not for this: softmax over many classes makes gradients too small for it."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return torch.float32 if dtype == torch.float16 else dtype


class _Reduced(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, project: Project, reduction: Reduction, size: int, dtype: torch.dtype | None, *sources: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        fixed = hidden.detach()
        ctx.sweep = lambda factors: _sweep(projector(project, dtype, sources), fixed, reduction, size, factors, True)
        values, gradients = ctx.sweep(None)
        ctx.save_for_backward(*gradients)
        return values.unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        used = [u for u in upstream if u is not None]
        if not used:
            return (None,) * len(ctx.needs_input_grad)
        if len(used) == len(upstream) and _equal(used):
            gradients = [g * used[0].to(g.dtype) for g in ctx.saved_tensors]
        else:  # somebody wants the gradient of a part of the loss: that is another pass
            _, gradients = ctx.sweep([used[0].new_zeros(()) if u is None else u for u in upstream])
        first, *others = gradients
        return first, None, None, None, None, *others


def _equal(upstream: Sequence[Tensor]) -> bool:
    """Sums of one loss are weighed alike. On a GPU that is checked without waiting for it."""
    if len(upstream) == 1:
        return True
    stacked = torch.stack(list(upstream))
    same = (stacked == stacked[0]).all()
    if stacked.device.type == "cpu":
        return bool(same)
    torch._assert_async(same, "terms of one head were weighed differently: differentiate them one by one")  # type: ignore[call-arg]
    return True


def _sweep(
    projector: "Projector", hidden: Tensor, reduction: Reduction, size: int, factors: Sequence[Tensor] | None, gradient: bool
) -> tuple[Tensor, list[Tensor]]:
    """Sums, and the gradients of hidden states and of the projection's sources."""
    values = torch.zeros(reduction.terms, device=hidden.device)
    pulled = torch.empty_like(hidden) if gradient else hidden
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            logits = projector.logits(hidden[part], gradient)
            values += reduction(logits, projector.dim, part, factors, gradient)
            if gradient:
                pulled[part] = projector.back(logits)
    return values, [pulled, *projector.gradients] if gradient else []


class Projector(Protocol):
    dim: int
    gradients: list[Tensor]

    def logits(self, hidden: Tensor, gradient: bool) -> Tensor:
        """(n, D) -> (n, V), or (V, n) with `dim` 0; float32."""

    def back(self, pull: Tensor) -> Tensor:
        """Gradient of the latest logits, in their shape -> that of their hidden states (n, D); `gradients` grow by theirs."""


def projector(project: Project, dtype: torch.dtype | None, sources: Sequence[Tensor]) -> Projector:
    """`dtype`: of the products; None: as the hidden states have it. `sources`: what of the projection trains."""
    linear = as_rows(project)
    return _Linear(linear, dtype, {id(s) for s in sources}) if linear else _Anything(project, sources, dtype)


def as_rows(project: Project) -> Rows | None:
    if type(project) is nn.Linear:  # not one that an adapter has taken the place of
        return Rows(project.weight, project.bias)
    return project if isinstance(project, Rows) else None


def _sources(project: Project, hidden: Tensor) -> list[Tensor]:
    """What a projection holds that trains."""
    if linear := as_rows(project):
        return [s for s in (linear.weight, linear.bias) if s is not None and s.requires_grad]
    logits = project(hidden.detach())
    found, queue, seen = [], [logits.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        queue += [inside for inside, _ in node.next_functions]
    return found


class _Linear:
    """By matrix products of our own: the gradient of a table adds up in one place, and the faster order of factors is taken."""

    def __init__(self, linear: Rows, dtype: torch.dtype | None, trained: set[int]) -> None:
        self.weight = linear.weight.detach().to(dtype or linear.weight.dtype)  # once, not for every chunk
        self.bias = None if linear.bias is None else linear.bias.detach()
        # Classes first: (V, D) x (D, n) takes a CPU three quarters of the time of (n, D) x (D, V).
        self.dim = 0 if self.weight.device.type == "cpu" else 1
        self.table, self.shift = (
            torch.zeros_like(t, dtype=torch.float32) if t is not None and id(t) in trained else None for t in (linear.weight, linear.bias)
        )
        self.gradients = [g for g in (self.table, self.shift) if g is not None]

    def logits(self, hidden: Tensor, gradient: bool) -> Tensor:
        self.hidden = hidden.to(self.weight.dtype)
        logits = (self.weight @ self.hidden.T if self.dim == 0 else self.hidden @ self.weight.T).float()
        if self.bias is not None:
            logits += self.bias[:, None] if self.dim == 0 else self.bias
        return logits

    def back(self, pull: Tensor) -> Tensor:
        pull = pull.T if self.dim == 0 else pull  # (n, V)
        narrow = pull.to(self.weight.dtype)
        if self.table is not None:
            if narrow.dtype == torch.float32:
                self.table.addmm_(narrow.T, self.hidden)
            else:
                self.table += narrow.T @ self.hidden
        if self.shift is not None:
            self.shift += pull.sum(0)
        return narrow @ self.weight


class _Anything:
    """By autograd: whatever a projection is made of."""

    dim = 1

    def __init__(self, project: Project, sources: Sequence[Tensor], dtype: torch.dtype | None) -> None:
        self.project, self.sources, self.dtype = project, sources, dtype
        self.gradients = [torch.zeros_like(s) for s in sources]

    def logits(self, hidden: Tensor, gradient: bool) -> Tensor:
        self.hidden = hidden.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient), torch.autocast(hidden.device.type, self.dtype, enabled=self.dtype is not None):
            self.output = self.project(self.hidden)
        logits = self.output.detach()
        return logits.clone() if logits.dtype == torch.float32 else logits.float()  # it is written over

    def back(self, pull: Tensor) -> Tensor:
        # A source may hang on a graph from outside, which the next chunk needs again.
        first, *others = torch.autograd.grad(self.output, [self.hidden, *self.sources], pull.to(self.output.dtype), retain_graph=True)
        for total, more in zip(self.gradients, others):
            total += more
        return first


@dataclass(eq=False)
class Projected:
    """A teacher's last hidden states and what they are projected by: an `entropies.Teacher`."""

    hidden: Tensor
    """(M, D)"""
    projector: Projector

    @torch.no_grad()
    def pull(self, logits: Tensor, dim: int, part: Tensor | slice, temperature: float) -> tuple[Tensor, Tensor]:
        taught = self.projector.logits(self.hidden[part], False)
        return kl_and_pull(taught if self.projector.dim == dim else taught.T.contiguous(), logits, dim, temperature)
