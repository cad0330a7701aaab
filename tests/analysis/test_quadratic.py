import pytest
import torch

from ttsadapt.analysis import quadratic
from ttsadapt.analysis.information import Factored, Whole
from ttsadapt.errors import ConfigError

SHAPES = [(7, 5), (6, 4, 3), (9,)]


def weights(seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g) for s in SHAPES]


def kept(kind):
    """Information of random squares, and the diagonal that it stands for."""
    information = []
    for gradient in weights(1):
        one = kind.of(gradient)
        one.add_square_(gradient)
        one.add_square_(2 * gradient)
        information.append(one)
    explicit = [i.chunk(0, len(g)).reshape(g.shape) for i, g in zip(information, weights(1))]
    return information, explicit


@pytest.fixture(params=[5, 1 << 16], ids=["in pieces", "at once"], autouse=True)
def piece(request, monkeypatch):
    monkeypatch.setattr(quadratic, "PIECE", request.param)


def test_a_rank_one_diagonal_has_the_sums_of_the_whole_one():
    (whole, exact), (factored, fitted) = kept(Whole), kept(Factored)
    for i, j, a, b in zip(whole, factored, exact, fitted):
        torch.testing.assert_close(a, i.tensors()[""])
        if a.dim() > 1:
            torch.testing.assert_close(a.flatten(1).sum(1), b.flatten(1).sum(1))
            torch.testing.assert_close(a.flatten(1).sum(0), b.flatten(1).sum(0))
            assert sum(t.numel() for t in j.tensors().values()) < a.numel()


@pytest.mark.parametrize("kind", [Whole, Factored])
@pytest.mark.parametrize("double", [False, True])
def test_the_value_and_gradient_for_weights_that_change_in_place(kind, double):
    information, explicit = kept(kind)
    now = [w.to(torch.float64 if double else torch.float32).requires_grad_(True) for w in weights(2)]
    starts = [weights(3)[0], None, weights(3)[2]]
    wanted = sum((f * (w - (0 if s is None else s)).square()).sum() / 2 for f, w, s in zip(explicit, now, starts))
    got = quadratic.dense(information, starts, now)
    torch.testing.assert_close(got, wanted.float())
    theirs = torch.autograd.grad(3 * wanted, now)
    for a, b in zip(torch.autograd.grad(3 * got, now), theirs):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float())


@pytest.mark.parametrize("kind", [Whole, Factored])
def test_the_value_and_gradient_of_a_low_rank_change(kind):
    information, explicit = (part[:2] for part in kept(kind))
    g = torch.Generator().manual_seed(4)
    down = [torch.randn(2, f[0].numel(), generator=g).requires_grad_(True) for f in explicit]
    up = [torch.randn(len(f), 2, generator=g).requires_grad_(True) for f in explicit]
    scales = [0.5, 2.0]
    wanted = sum((f.flatten(1) * (s * b @ a).square()).sum() / 2 for f, s, a, b in zip(explicit, scales, down, up))
    got = quadratic.low_rank(information, scales, down, up)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(torch.autograd.grad(2 * got, [*down, *up]), torch.autograd.grad(2 * wanted, [*down, *up])):
        torch.testing.assert_close(a, b)


def test_a_gradient_is_given_once():
    information, _ = kept(Whole)
    now = [w.requires_grad_(True) for w in weights(2)]
    penalty = quadratic.dense(information, [None] * 3, now)
    penalty.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the penalty again"):
        penalty.backward()


def test_two_kinds_cannot_be_added():
    (whole, *_), (factored, *_) = kept(Whole)[0], kept(Factored)[0]
    torch.testing.assert_close(whole.plus(whole).tensors()[""], 2 * whole.tensors()[""])
    with pytest.raises(ConfigError, match=r"strategy\.ewc\.rank1"):
        whole.plus(factored)
