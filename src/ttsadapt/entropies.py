"""Cross-entropy and divergences of a chunk of logits: their sums, and in the logits' own place their gradient.

Classes lie along `dim`, 0 or 1, positions along the other one. Everything is float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


def softmax_(logits: Tensor, dim: int) -> Tensor:
    """In place; gives the log of the sums (n,)."""
    top = logits.amax(dim, keepdim=True)
    total = logits.sub_(top).exp_().sum(dim, keepdim=True)
    logits.mul_(total.reciprocal())
    return (top + total.log_()).squeeze(dim)


def smoothed(truth: Tensor, others: Tensor, classes: int, smoothing: float) -> Tensor:
    """KL(smoothed target || prediction), zero for a model that predicts the smoothed target.

    `truth` (N,): log p of the true class, which gets 1 - smoothing; `others` (N,): the sum over all others, an equal share each.
    """
    sure, other = 1 - smoothing, smoothing / (classes - 1)
    entropy = sure * math.log(sure) + smoothing * math.log(other)
    return entropy - sure * truth - other * others


def drawn(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """(n, V) -> (n,) classes, by inverting the distribution: one random number a position instead of one a class."""
    mass = probabilities.cumsum(-1)
    device = probabilities.device
    asked = torch.rand(len(mass), 1, generator=generator, device=generator.device if generator else device).to(device) * mass[:, -1:]
    asked = torch.minimum(asked, torch.nextafter(mass[:, -1:], mass.new_zeros(())))  # a class whose mass is not nought
    return torch.searchsorted(mass, asked, right=True)[:, 0]


class Teacher(Protocol):
    """Something that knows what should be predicted at M positions."""

    def pull(self, logits: Tensor, dim: int, part: Tensor | slice, temperature: float) -> tuple[Tensor, Tensor]:
        """The student's logits at positions `part` of the teacher's -> KL(teacher || student) (m,) at the temperature, and T times
        its gradient, in the logits' shape. The logits stay as they are."""


def kl_and_pull(taught: Tensor, logits: Tensor, dim: int, temperature: float) -> tuple[Tensor, Tensor]:
    """What `Teacher.pull` gives, from the teacher's logits, which are written over."""
    student, target = logits / temperature, taught / temperature
    theirs, ours = softmax_(target, dim), softmax_(student, dim)
    value = taught.sub_(logits).mul_(target).sum(dim) / temperature - theirs + ours
    return value, student.sub_(target)


@dataclass(eq=False)
class Pull:
    """A wanted divergence."""

    teacher: Teacher
    temperature: float
    factor: Tensor | float
    """of the sum: what the term weighs, T^2, one over the positions of the step"""
    own: Tensor
    """(M,) positions of the student, ascending"""
    theirs: Tensor
    """(M,) the same positions of the teacher"""
    whole: bool
    """all positions of the student, so that `own` need not be looked at"""
    worth: Tensor | None = None
    """(N,) how much of a position each of the student's counts"""

    def __call__(self, logits: Tensor, dim: int, part: slice) -> tuple[Tensor, Tensor | slice, Tensor]:
        """() the sum, positions of the chunk, and the gradient there."""
        at, inside = self._at(part)
        kept = logits if isinstance(inside, slice) else logits.index_select(1 - dim, inside)
        value, gradient = self.teacher.pull(kept, dim, at, self.temperature)
        scale: Tensor | float = self.factor
        if self.worth is not None:
            worth = self.worth[part][inside]
            value, scale = value * worth, (scale * worth).unsqueeze(dim)
        return value.sum() * self.factor, inside, gradient.mul_(scale / self.temperature)

    def _at(self, part: slice) -> tuple[Tensor | slice, Tensor | slice]:
        if self.whole:
            return self.theirs[part], slice(None)
        low, high = torch.searchsorted(self.own, self.own.new_tensor([part.start, part.stop])).tolist()
        return self.theirs[low:high], self.own[low:high] - part.start


@dataclass(eq=False)
class Entropies:
    """The task's cross-entropy and any number of divergences: a `reduction.Reduction`."""

    factor: Tensor | float
    """of the task's sum"""
    target: Tensor | None
    """(N,); None: drawn from the prediction"""
    smoothing: float = 0.0
    worth: Tensor | None = None
    """(N,) how much of a position each counts; None: one"""
    generator: torch.Generator | None = None
    pulls: list[Pull] = field(default_factory=list)

    @property
    def terms(self) -> int:
        return 1 + len(self.pulls)

    def __call__(self, logits: Tensor, dim: int, part: slice, factors: Sequence[Tensor] | None, gradient: bool) -> Tensor:
        pulled = [pull(logits, dim, part) for pull in self.pulls]
        task = self._task(logits, dim, part)
        if gradient and factors is not None:
            logits.mul_(factors[0])
        for number, (_, inside, pull) in enumerate(pulled if gradient else (), 1):
            if factors is not None:
                pull.mul_(factors[number])
            if isinstance(inside, slice):
                logits += pull
            else:
                logits.index_add_(1 - dim, inside, pull)
        return torch.stack([task, *(value for value, *_ in pulled)])

    def _task(self, logits: Tensor, dim: int, part: slice) -> Tensor:
        """The sum; the logits become its gradient."""
        classes = logits.shape[dim]
        target = None if self.target is None else self.target[part]
        if target is not None:
            picked = logits.gather(dim, target.unsqueeze(dim)).squeeze(dim)
        every = logits.sum(dim) if self.smoothing else None
        total = softmax_(logits, dim)
        if target is None:
            target = drawn(logits if dim == 1 else logits.T.contiguous(), self.generator)
            truth = logits.gather(dim, target.unsqueeze(dim)).squeeze(dim).log()
        else:
            truth = picked - total
        value, share = -truth, 1.0
        if every is not None:
            value = smoothed(truth, every - classes * total - truth, classes, self.smoothing)
            other = self.smoothing / (classes - 1)
            logits -= other
            share = 1 - self.smoothing - other
        logits.scatter_add_(dim, target.unsqueeze(dim), logits.new_full((), -share).expand_as(target.unsqueeze(dim)))
        scale: Tensor | float = self.factor
        if self.worth is not None:
            value, scale = value * self.worth[part], (scale * self.worth[part]).unsqueeze(dim)
        logits.mul_(scale)
        return value.sum() * self.factor
