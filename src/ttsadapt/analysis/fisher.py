"""How much each weight matters for what a model predicts: the diagonal of its Fisher information.

F_i = E_x E_{y ~ p(.|x)} [(d log p(y|x) / d theta_i)^2] at the given weights: texts and prefixes come from the data, what is
predicted is drawn from the model itself (the true Fisher; with the data's own targets it would vanish as a model fits them).
Given its prefix every drawn score has mean zero, so the cross terms of the square of a *batch's* summed gradient vanish in
expectation: one backward pass a batch is unbiased (the Gauss-Newton-Bartlett estimator of Liu et al. 2023, section 2.3).

Unit: nats per position. Heads are weighed as in the task loss: sum_h w_h F_h / N_h over sum_h w_h, with w_h the head's
weight, F_h its information summed over its N_h positions. Since F is a square, a head's score enters by sqrt(w_h / N_h); N_h
is read off each batch, and batches count by their size. For small changes d, 1/2 sum_i F_i d_i^2 is about the same mean of
KL(before || after). Continuous heads: the information of the stated likelihood, proportional to 1 / sigma^2.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ttsadapt.adapters import base_parameters
from ttsadapt.analysis.information import Diagonal, Information, Whole
from ttsadapt.backbones.base import Backbone, Batch, to_device
from ttsadapt.bars import Bar
from ttsadapt.data.features import FeatureSet
from ttsadapt.errors import DataError, UserError
from ttsadapt.heads import Heads


def fisher(backbone: Backbone, batches: Iterable[Batch], generator: torch.Generator) -> dict[str, Tensor]:
    """float32 tensors of the shape of each parameter, by original name; the backbone is left as it was found."""
    return {n: i.tensors()[""] for n, i in estimated(backbone, batches, generator, Whole).items()}


def estimated(backbone: Backbone, batches: Iterable[Batch], generator: torch.Generator, kept: type[Information]) -> Diagonal:
    """As `fisher`, kept whole or as sums of rows and columns; then no more than one gradient is ever held whole."""
    weights = {n: p for n, p in base_parameters(backbone).items() if p.is_floating_point()}
    device = next(iter(weights.values())).device
    generator = _beside(device, generator)
    with measured(backbone):
        total: list[Information] = [kept.of(p) for p in weights.values()]
        mass = 0.0
        for batch in Bar(batches, "Fisher information", unit="batch", leave=False):
            heads = backbone(to_device(batch, device))
            if mass == 0:  # drawing from what is not finite ends some devices; weights that are not show in the first batch
                _check(heads, batch)
            score, size = drawn_score(heads, generator)
            if not score.isfinite():
                _check(heads, batch)
            if size > 0:
                gradients = torch.autograd.grad(score, list(weights.values()), allow_unused=True)
                _add_squares(total, gradients)
                mass += size
    if mass == 0:
        raise DataError("Fisher information: the source utterances hold no supervised position: give more, or other, source data")
    return {n: i.mapped(lambda t: t.div_(mass)) for n, i in zip(weights, total)}


def drawn_score(heads: Heads, generator: torch.Generator) -> tuple[Tensor, float]:
    """log p of targets drawn from the model, summed over heads and positions, and what its squared gradient is divided by."""
    heads = {n: h for n, h in heads.items() if h.count and h.weight > 0}
    size = max((h.count for h in heads.values()), default=0)
    score = sum((h.weight * size / h.count) ** 0.5 * h.drawn_score(generator) for h in heads.values())
    return torch.as_tensor(score), size * sum(h.weight for h in heads.values())


@contextmanager
def resting(backbone: nn.Module) -> Iterator[None]:
    """Eval mode; every module's mode is as before when the block ends."""
    modes = {m: m.training for m in backbone.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def measured(backbone: nn.Module) -> Iterator[None]:
    """Eval mode, float32, every weight differentiable; modes, dtypes and requires_grad are as before when the block ends."""
    weights = [(p, p.requires_grad, p.data) for p in backbone.parameters() if p.is_floating_point()]
    device = weights[0][0].device.type
    for parameter, _, data in weights:
        parameter.data = data.float()
        parameter.requires_grad_(True)
    try:
        # cuDNN's recurrent layers have no backward pass in eval mode
        with resting(backbone), torch.enable_grad(), torch.autocast(device, enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for parameter, needed, data in weights:
            parameter.data = data
            parameter.requires_grad_(needed)


def drawn(features: FeatureSet, utterances: int, generator: torch.Generator) -> FeatureSet:
    """At most so many of the utterances, at random."""
    keep = torch.randperm(len(features.ids), generator=generator)[:utterances].sort().values.tolist()
    part = copy.copy(features)
    part.ids = [features.ids[i] for i in keep]
    part.utterances = {i: features.utterances[i] for i in part.ids}
    return part


def _beside(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on the device: the given one, or one seeded by it."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


@torch.no_grad()
def _add_squares(total: Sequence[Information], gradients: Sequence[Tensor | None]) -> None:
    for information, gradient in zip(total, gradients):
        if gradient is not None:
            information.add_square_(gradient)


def _check(heads: Heads, batch: Batch) -> None:
    for name, head in heads.items():
        if not head.log_likelihood_per_position().isfinite().all():
            raise UserError(
                f"Fisher information: the base model's {name} is not finite on {', '.join(batch['ids'][:3])}: "
                "its weights or these recordings hold NaN or infinite values"
            )
