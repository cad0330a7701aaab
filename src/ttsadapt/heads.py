"""What a backbone predicts at its supervised positions, and what was wanted there.

A head holds supervised positions only: no padding, no prompt. Losses are sums over positions divided by `total`, the number
of such positions in the whole optimiser step (all ranks, all accumulated batches), so that neither padding, nor the number of
ranks, nor accumulation changes a number.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(eq=False)
class Head(ABC):
    """One thing a backbone predicts at N supervised positions."""

    target: Tensor
    """(N,) class indices, or (N, C) values"""
    row: Tensor
    """(N,) which utterance of the batch each position belongs to"""
    unit: str
    """what is counted: a key of batch["totals"], such as "frames", "phones" or "tokens" """
    weight: float = 1.0
    """the paper's weight of this head in the task loss"""
    total: Tensor | float | None = None
    """positions in the whole optimiser step; None: those of this batch"""

    @property
    def count(self) -> int:
        return len(self.target)

    def mean(self, per_position: Tensor) -> Tensor:
        """(N,) -> (): the sum over positions divided by `total`."""
        total = max(self.count, 1) if self.total is None else self.total
        return per_position.sum() / total

    @abstractmethod
    def per_position(self) -> Tensor:
        """(N,) the loss, in nats where the head is a likelihood."""

    @abstractmethod
    def divergence_per_position(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        """(N,) distance to a teacher's prediction at the same positions."""

    @abstractmethod
    def sampled(self, generator: torch.Generator | None = None) -> Self:
        """The same head with targets drawn from the model's own prediction: what the true Fisher differentiates."""

    @abstractmethod
    def log_likelihood_per_position(self) -> Tensor:
        """(N,) log p(target), constants dropped."""

    @abstractmethod
    def kl_per_position(self, base: Self) -> Tensor:
        """(N,) KL(base || self) in nats: the drift from the untuned model."""

    @abstractmethod
    def select(self, keep: Tensor) -> Self:
        """Only the positions of utterances with keep[row]; `keep` is a (B,) bool tensor. `total` is cleared."""

    def loss(self) -> Tensor:
        return self.mean(self.per_position())

    def divergence(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        return self.mean(self.divergence_per_position(teacher, temperature))

    def _positions(self, keep: Tensor) -> Tensor:
        return keep.to(self.row.device)[self.row].nonzero(as_tuple=True)[0]


@dataclass(eq=False)
class Categorical(Head):
    """A softmax over `classes` rows. The projection is lazy: hidden states of supervised positions in, logits on demand."""

    hidden: Tensor = None  # type: ignore[assignment]
    """(N, D)"""
    project: Callable[[Tensor], Tensor] = None  # type: ignore[assignment]
    """(N, D) -> (N, V), only onto rows that can be targets"""

    @cached_property
    def logits(self) -> Tensor:
        return self.project(self.hidden).float()

    def per_position(self) -> Tensor:
        return F.cross_entropy(self.logits, self.target, reduction="none")

    def log_likelihood_per_position(self) -> Tensor:
        return -self.per_position()

    def divergence_per_position(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        """T^2 KL(teacher || student) at temperature T: T^2 keeps the size of the gradient (Hinton et al. 2015, section 2)."""
        student = (self.logits / temperature).log_softmax(-1)
        taught = (teacher.logits.detach() / temperature).log_softmax(-1)
        return temperature**2 * F.kl_div(student, taught, reduction="none", log_target=True).sum(-1)

    def kl_per_position(self, base: Self) -> Tensor:
        return self.divergence_per_position(base)

    def sampled(self, generator: torch.Generator | None = None) -> Self:
        probabilities = self.logits.detach().softmax(-1)
        drawn = replace(self, target=torch.multinomial(probabilities, 1, generator=generator)[:, 0])
        drawn.__dict__["logits"] = self.logits  # the prediction is the same: project once
        return drawn

    def select(self, keep: Tensor) -> Self:
        index = self._positions(keep)
        part = replace(self, target=self.target[index], row=self.row[index], hidden=self.hidden[index], total=None)
        if "logits" in self.__dict__:
            part.__dict__["logits"] = self.logits[index]
        return part


@dataclass(eq=False)
class Continuous(Head):
    """Values with a Laplace (L1) or Gaussian (L2) likelihood of stated scale behind the loss."""

    value: Tensor = None  # type: ignore[assignment]
    """(N, C)"""
    norm: int = 2
    """1: L1, Laplace; 2: L2, Gaussian"""
    sigma: float = 1.0
    """scale of that likelihood in the target's unit: fixes the size of Fisher information and KL"""

    def _distance(self, other: Tensor) -> Tensor:
        difference = self.value.float() - other
        return difference.abs() if self.norm == 1 else difference.square()

    def per_position(self) -> Tensor:
        return self._distance(self.target).mean(-1)

    def log_likelihood_per_position(self) -> Tensor:
        scale = self.sigma if self.norm == 1 else 2 * self.sigma**2
        return -self._distance(self.target).sum(-1) / scale

    def divergence_per_position(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        """Same norm, to the teacher's value. A temperature only rescales it and T^2 undoes that, so it is not used."""
        return self._distance(teacher.value.detach().float()).mean(-1)

    def kl_per_position(self, base: Self) -> Tensor:
        scaled = (self.value.float() - base.value.float()).abs() / self.sigma
        if self.norm == 2:
            return 0.5 * scaled.square().sum(-1)
        return (scaled + torch.exp(-scaled) - 1).sum(-1)  # KL of two Laplace densities of equal scale

    def sampled(self, generator: torch.Generator | None = None) -> Self:
        mean = self.value.detach().float()
        if self.norm == 2:
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        else:
            uniform = torch.rand(mean.shape, generator=generator, device=mean.device).clamp(1e-6, 1 - 1e-6) - 0.5
            noise = -uniform.sign() * torch.log1p(-2 * uniform.abs())
        return replace(self, target=mean + self.sigma * noise)

    def select(self, keep: Tensor) -> Self:
        index = self._positions(keep)
        return replace(self, target=self.target[index], row=self.row[index], value=self.value[index], total=None)


@dataclass(eq=False)
class Objective(Head):
    """A term of the training objective that predicts nothing one could draw: how well frames align with phones.

    It has no distribution over targets, so it says nothing about how far two models are apart, and its own score stands for
    the Fisher information. `target` only says how many positions there are.
    """

    value: Tensor = None  # type: ignore[assignment]
    """(N,) nats"""

    def per_position(self) -> Tensor:
        return self.value

    def log_likelihood_per_position(self) -> Tensor:
        return -self.value

    def divergence_per_position(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        return torch.zeros_like(self.value)

    def kl_per_position(self, base: Self) -> Tensor:
        return torch.zeros_like(self.value)

    def sampled(self, generator: torch.Generator | None = None) -> Self:
        return self

    def select(self, keep: Tensor) -> Self:
        index = self._positions(keep)
        return replace(self, target=self.target[index], row=self.row[index], value=self.value[index], total=None)


Heads = dict[str, Head]


def task_loss(heads: Heads) -> dict[str, Tensor]:
    """Weighted loss of every head, by name."""
    return {name: head.weight * head.loss() for name, head in heads.items()}
