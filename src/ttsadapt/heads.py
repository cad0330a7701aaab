"""What a backbone predicts at its supervised positions, and what was wanted there.

A head holds supervised positions only: no padding, no prompt. Losses are sums over positions divided by `total`, the number
of such positions in the whole optimiser step (all ranks, all accumulated batches), so that neither padding, nor the number of
ranks, nor accumulation changes a number.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ttsadapt.entropies import Entropies, Pull, Teacher, drawn, smoothed
from ttsadapt.reduction import Project, Projected, autocast_dtype, chunk, projector, reduced, width

FEW = 64
"""positions whose logits are never too many"""


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

    state: ClassVar[str | None] = None
    """the field that a prediction is made of, (N, ...): enough to teach another head of the same kind; None: there is none"""

    @property
    def count(self) -> int:
        return len(self.target)

    def mean(self, per_position: Tensor) -> Tensor:
        """(N,) -> (): the sum over positions divided by `total`."""
        return per_position.sum() / self.positions

    @abstractmethod
    def per_position(self) -> Tensor:
        """(N,) the loss, in nats where the head is a likelihood."""

    @abstractmethod
    def divergence_per_position(self, teacher: Any, temperature: float = 1.0) -> Tensor:
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

    def divergence(self, teacher: Any, temperature: float = 1.0) -> Tensor:
        return self.mean(self.divergence_per_position(teacher, temperature))

    def drawn_score(self, generator: torch.Generator | None = None) -> Tensor:
        """() log p of targets drawn from the model's own prediction, summed over positions."""
        return self.sampled(generator).log_likelihood_per_position().sum()

    def reduced(self, wanted: "Sequence[Divergence]") -> list[Tensor]:
        """The weighted loss, then every wanted term, each (): what `loss` and `Divergence.term` give, in one pass where that saves any."""
        return [self.weight * self.loss(), *(divergence.term(self) for divergence in wanted)]

    @property
    def positions(self) -> Tensor | float:
        """What sums are divided by."""
        return max(self.count, 1) if self.total is None else self.total

    def positions_of(self, keep: Tensor) -> Tensor:
        """Those of utterances with keep[row], ascending."""
        return keep.to(self.row.device)[self.row].nonzero(as_tuple=True)[0]


@dataclass(eq=False)
class Divergence:
    """A term that is wanted of a head: what keeps it near a teacher's prediction. `reduced` works all of them out at once."""

    head: str
    teacher: Any
    """a head of the same kind, or what was kept of one (`teachers.Likeliest`)"""
    keep: Tensor
    """(B,) bool: which utterances of the batch it looks at"""
    total: float
    """positions of these utterances in the whole optimiser step"""
    weight: float = 1.0
    temperature: float = 1.0

    def term(self, head: Head) -> Tensor:
        """() weight * T^2 KL, or distance, summed over positions and divided by `total`."""
        student = head.select(self.keep)
        student.total = self.total
        return self.weight * student.divergence(self.teacher.select(self.keep), self.temperature)


@dataclass(eq=False)
class Categorical(Head):
    """A softmax over `classes` rows. The projection is lazy: hidden states of supervised positions in, logits on demand.

    Where all logits together would be large they never are: sums and draws go through them in chunks (`reduction`).
    """

    hidden: Tensor = None  # type: ignore[assignment]
    """(N, D)"""
    project: Project = None  # type: ignore[assignment]
    """(N, D) -> (N, V), only onto rows that can be targets. A linear layer or `reduction.Rows` is fastest."""
    smoothing: float = 0.0
    """label smoothing; the loss is then a KL divergence, zero for a model that predicts the smoothed target"""
    worth: Tensor | None = None
    """(N,) how much of a position each of them counts; None: one each"""
    together: int = 1
    """positions that `project` takes together, in their order: the levels of a frame, say"""

    state: ClassVar[str | None] = "hidden"

    @cached_property
    def logits(self) -> Tensor:
        """(N, V) float32."""
        return self.project(self.hidden).float()

    @cached_property
    def large(self) -> bool:
        """Whether all logits at once are too many."""
        if "logits" in self.__dict__ or len(self.hidden) <= max(FEW, self.together):
            return False
        return len(self.hidden) > self._chunk

    @cached_property
    def _chunk(self) -> int:
        with torch.no_grad():
            return chunk(width(self.project, self.hidden, self.together), self.hidden.device, self.together)

    def per_position(self) -> Tensor:
        return self._worth(self.by_chunks(lambda own, _: own._cross_entropy()))

    def log_likelihood_per_position(self) -> Tensor:
        return self._worth(-self.by_chunks(lambda own, _: own._negative_log_likelihood()))

    def divergence_per_position(self, teacher: Any, temperature: float = 1.0) -> Tensor:
        """T^2 KL(teacher || student) at temperature T: T^2 keeps the size of the gradient (Hinton et al. 2015, section 2)."""
        values = self.by_chunks(lambda own, part: teacher.part(part).kl_to(own.logits, temperature))
        return self._worth(temperature**2 * values)

    def kl_per_position(self, base: Self) -> Tensor:
        return self.divergence_per_position(base)

    def kl_to(self, logits: Tensor, temperature: float) -> Tensor:
        """(N, V) of a student -> (N,) KL(self || student) at a temperature; differentiable in the student alone."""
        with torch.no_grad():
            taught = (self.logits / temperature).log_softmax(-1)
        return F.kl_div((logits / temperature).log_softmax(-1), taught, reduction="none", log_target=True).sum(-1)

    def as_teacher(self) -> Teacher:
        return Projected(self.hidden.detach(), projector(self.project, autocast_dtype(self.hidden), ()))

    def sampled(self, generator: torch.Generator | None = None) -> Self:
        with torch.no_grad():
            target = self.by_chunks(lambda own, _: drawn(own.logits.detach().softmax(-1), generator))
        head = replace(self, target=target)
        if "logits" in self.__dict__:
            head.__dict__["logits"] = self.logits  # the prediction is the same: project once
        return head

    def drawn_score(self, generator: torch.Generator | None = None) -> Tensor:
        if not self.large:
            return super().drawn_score(generator)
        (value,) = self._reduced(Entropies(-1.0, None, worth=self.worth, generator=generator))
        return value

    def loss(self) -> Tensor:
        if not self.large:
            return super().loss()
        (value,) = self._reduced(Entropies(1 / self.positions, self.target, self.smoothing, self.worth))
        return value

    def reduced(self, wanted: Sequence[Divergence]) -> list[Tensor]:
        if not self.large:
            return super().reduced(wanted)
        pulls = [self._pull(d) for d in wanted]
        asked = [pull for pull in pulls if pull]
        task, *terms = self._reduced(Entropies(self.weight / self.positions, self.target, self.smoothing, self.worth, pulls=asked))
        given = iter(terms)
        return [task, *(next(given) if pull else task.new_zeros(()) for pull in pulls)]

    def _pull(self, wanted: Divergence) -> Pull | None:
        """None when it looks at no position of this batch."""
        own, theirs = self.positions_of(wanted.keep), wanted.teacher.positions_of(wanted.keep)
        factor, whole = wanted.weight * wanted.temperature**2 / wanted.total, len(own) == len(self.hidden)
        teacher: Teacher = wanted.teacher.as_teacher()
        return Pull(teacher, wanted.temperature, factor, own, theirs, whole, self.worth) if len(own) else None

    def _reduced(self, entropies: Entropies) -> tuple[Tensor, ...]:
        return reduced(self.hidden, self.project, entropies, self.together)

    def select(self, keep: Tensor) -> Self:
        return self._at(self.positions_of(keep), total=None)

    def part(self, positions: slice) -> Self:
        """Neighbouring positions; itself when these are all."""
        return self if positions == slice(None) else self._at(positions)

    def _at(self, index: Tensor | slice, **changed: Any) -> Self:
        worth = None if self.worth is None else self.worth[index]
        part = replace(self, target=self.target[index], row=self.row[index], hidden=self.hidden[index], worth=worth, **changed)
        if "logits" in self.__dict__:
            part.__dict__["logits"] = self.logits[index]
        return part

    def by_chunks(self, values: Callable[[Self, slice], Tensor]) -> Tensor:
        """(n,) values of parts of the positions -> (N,). With gradients a part's logits are computed again when they are needed."""
        if not self.large:
            return values(self, slice(None))
        found = []
        for start in range(0, len(self.hidden), self._chunk):
            part = slice(start, start + self._chunk)

            def of(hidden: Tensor, part: slice = part) -> Tensor:
                return values(replace(self.part(part), hidden=hidden), part)

            hidden = self.hidden[part]
            found.append(checkpoint(of, hidden, use_reentrant=False) if torch.is_grad_enabled() else of(hidden))
        return torch.cat(found)

    def _cross_entropy(self) -> Tensor:
        if not self.smoothing:
            return self._negative_log_likelihood()
        logs = self.logits.log_softmax(-1)
        truth = logs.gather(1, self.target[:, None])[:, 0]
        return smoothed(truth, logs.sum(-1) - truth, logs.shape[1], self.smoothing)

    def _negative_log_likelihood(self) -> Tensor:
        return F.cross_entropy(self.logits, self.target, reduction="none")

    def _worth(self, values: Tensor) -> Tensor:
        return values if self.worth is None else values * self.worth


@dataclass(eq=False)
class Continuous(Head):
    """Values with a Laplace (L1) or Gaussian (L2) likelihood of stated scale behind the loss."""

    value: Tensor = None  # type: ignore[assignment]
    """(N, C)"""
    norm: int = 2
    """1: L1, Laplace; 2: L2, Gaussian"""
    sigma: float = 1.0
    """scale of that likelihood in the target's unit: fixes the size of Fisher information and KL"""

    state: ClassVar[str | None] = "value"

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
        index = self.positions_of(keep)
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
        index = self.positions_of(keep)
        return replace(self, target=self.target[index], row=self.row[index], value=self.value[index], total=None)


Heads = dict[str, Head]


def task_loss(heads: Heads) -> dict[str, Tensor]:
    """Weighted loss of every head, by name."""
    return {name: head.weight * head.loss() for name, head in heads.items()}


def reduced_terms(heads: Heads, wanted: Mapping[str, Sequence[Divergence]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weighted loss of every head by name, and the sum of the terms that are `wanted` by each name; every head is gone through once."""
    task: dict[str, Tensor] = {}
    sums: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for name, head in heads.items():
        asked = [(by, d) for by, divergences in wanted.items() for d in divergences if d.head == name]
        task[name], *terms = head.reduced([d for _, d in asked])
        for (by, _), term in zip(asked, terms):
            sums[by].append(term)
    return task, {name: torch.stack(terms).sum() for name, terms in sums.items() if terms}
