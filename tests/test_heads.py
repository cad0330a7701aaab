import math

import pytest
import torch
import torch.nn.functional as F

from ttsadapt.heads import Categorical, Continuous


def categorical(n=40, classes=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, classes, generator=g)
    target = torch.randint(classes, (n,), generator=g)
    return Categorical(target=target, row=torch.arange(n) % 4, unit="tokens", hidden=hidden, project=lambda h: h)


def continuous(norm, n=40, sigma=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    value, target = torch.randn(n, 3, generator=g), torch.randn(n, 3, generator=g)
    return Continuous(target=target, row=torch.arange(n) % 4, unit="frames", value=value, norm=norm, sigma=sigma)


def test_loss_is_the_mean_over_positions_or_over_the_stated_total():
    head = categorical()
    assert torch.allclose(head.loss(), F.cross_entropy(head.hidden, head.target))
    head.total = 80.0
    assert torch.allclose(head.loss(), F.cross_entropy(head.hidden, head.target) / 2)


def test_parts_of_a_batch_add_up_to_the_whole():
    head = categorical()
    whole = head.loss()
    parts = []
    for keep in (torch.tensor([True, False, True, False]), torch.tensor([False, True, False, True])):
        part = head.select(keep)
        assert part.total is None and set(part.row.tolist()) <= set(keep.nonzero()[:, 0].tolist())
        part.total = head.count
        parts.append(part.loss())
    assert torch.allclose(sum(parts), whole)


def test_divergence_is_zero_for_the_same_prediction_and_keeps_its_gradient_over_temperatures():
    student, teacher = categorical(seed=0), categorical(seed=1)
    assert student.divergence(student, 2.0).abs() < 1e-6
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        hidden = (0.1 * student.hidden).clone().requires_grad_()
        s = Categorical(target=student.target, row=student.row, unit="tokens", hidden=hidden, project=lambda h: h)
        t = Categorical(target=student.target, row=student.row, unit="tokens", hidden=0.1 * teacher.hidden, project=lambda h: h)
        s.divergence(t, temperature).backward()
        sizes.append(hidden.grad.norm())
    assert max(sizes) / min(sizes) < 1.3


def test_sampled_targets_follow_the_prediction():
    head = categorical(n=1, classes=3)
    probabilities = head.logits.softmax(-1)[0]
    many = Categorical(
        target=torch.zeros(20_000, dtype=torch.long), row=torch.zeros(20_000, dtype=torch.long), unit="tokens",
        hidden=head.hidden.expand(20_000, 3), project=lambda h: h,
    )  # fmt: skip
    drawn = many.sampled(torch.Generator().manual_seed(0)).target
    shares = torch.bincount(drawn, minlength=3) / 20_000
    assert (shares - probabilities).abs().max() < 0.015


@pytest.mark.parametrize(("norm", "spread"), [(1, math.sqrt(2)), (2, 1.0)])
def test_sampled_values_have_the_likelihoods_spread(norm, spread):
    head = continuous(norm, n=20_000, sigma=0.5)
    noise = head.sampled(torch.Generator().manual_seed(0)).target - head.value
    assert abs(noise.std() / (0.5 * spread) - 1) < 0.02
    assert noise.mean().abs() < 0.02


@pytest.mark.parametrize("norm", [1, 2])
def test_kl_of_continuous_heads_matches_a_monte_carlo_estimate(norm):
    base, tuned = continuous(norm, n=20_000, seed=0), continuous(norm, n=20_000, seed=0)
    tuned.value = base.value + 0.2
    drawn = base.sampled(torch.Generator().manual_seed(1)).target
    base.target = tuned.target = drawn
    estimate = (base.log_likelihood_per_position() - tuned.log_likelihood_per_position()).mean()
    assert torch.allclose(tuned.kl_per_position(base).mean(), estimate, rtol=0.06)


def test_projection_is_made_once():
    calls = []
    head = categorical()
    head.project = lambda h: calls.append(1) or h
    head.loss(), head.sampled().loss(), head.select(torch.ones(4, dtype=torch.bool)).loss()
    assert len(calls) == 1


def test_what_is_drawn_from_a_small_head_has_a_gradient():
    torch.manual_seed(0)
    hidden, weight = torch.randn(6, 3), torch.randn(4, 3, requires_grad=True)
    head = Categorical(
        torch.zeros(6, dtype=torch.long), torch.zeros(6, dtype=torch.long), "tokens", hidden=hidden, project=lambda h: h @ weight.T
    )
    head.drawn_score(torch.Generator().manual_seed(0)).backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
