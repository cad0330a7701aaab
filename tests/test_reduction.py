"""Sums over logits that never exist at once against the plain computation on all of them."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ttsadapt import reduction
from ttsadapt.heads import Categorical, Divergence, reduced_terms
from ttsadapt.reduction import Rows

CLASSES, WIDTH, N = 50, 8, 104


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """A dozen positions at a time."""
    monkeypatch.setitem(reduction.CHUNK, "cpu", 12 * CLASSES + 7)


class Odd(nn.Module):
    """A projection that is no linear layer: its positions come in pairs, each of the two with a table of its own."""

    def __init__(self):
        super().__init__()
        self.tables = nn.Parameter(torch.randn(2, WIDTH, CLASSES))

    def forward(self, hidden):
        return torch.einsum("npd,pdv->npv", hidden.unflatten(0, (-1, 2)), self.tables).flatten(0, 1)


def linear():
    return nn.Linear(WIDTH, CLASSES)


def rows():
    table = nn.Parameter(torch.randn(3 * CLASSES, WIDTH))
    made = Rows(table[CLASSES : 2 * CLASSES])
    made.table = table
    return made


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.a = nn.Linear(WIDTH, CLASSES, bias=False), nn.Parameter(torch.randn(CLASSES, WIDTH) * 0.1)
        self.inner.requires_grad_(False)

    def forward(self, hidden):
        return self.inner(hidden) + F.linear(hidden, self.a)


PROJECTIONS = {"linear": linear, "rows": rows, "odd": Odd, "wrapped": Wrapped}


def trained(project):
    if isinstance(project, Rows):
        return [project.table] if project.weight.requires_grad else []
    return [p for p in project.parameters() if p.requires_grad]


def head_of(project, n=N, seed=0, scale=2.0, **kw):
    g = torch.Generator().manual_seed(seed)
    hidden = (scale * torch.randn(n, WIDTH, generator=g)).requires_grad_()
    target = torch.randint(CLASSES, (n,), generator=g)
    together = 2 if isinstance(project, Odd) else 1
    return Categorical(target=target, row=torch.arange(n) * 4 // n, unit="tokens", hidden=hidden, project=project, together=together, **kw)


def plain(head):
    """The same head, all of whose logits exist."""
    twin = replace(head, hidden=head.hidden.detach().clone().requires_grad_())
    twin.logits  # noqa: B018
    return twin


def gradients(loss, head):
    wanted = [head.hidden, *trained(head.project)]
    return torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)


def alike(ours, theirs, tolerance=1e-5):
    for a, b in zip(ours, theirs):
        b = torch.zeros_like(a) if b is None else b
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * b.abs().max()), (a - b).abs().max()


SETTINGS = [{}, {"smoothing": 0.1}, {"worth": torch.rand(N)}, {"smoothing": 0.2, "worth": torch.rand(N)}]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("kind", "settings"), itertools.product(PROJECTIONS, SETTINGS))
def test_the_loss_and_its_gradient_are_those_of_the_plain_computation(kind, settings, frozen):
    torch.manual_seed(0)
    project = PROJECTIONS[kind]()
    if frozen and kind == "rows":
        project.weight = project.weight.detach()
    elif frozen:
        project.requires_grad_(False)
    head = head_of(project, weight=0.7, total=173.0, **settings)
    assert head.large
    twin = plain(head)
    assert not twin.large
    (ours,), (theirs,) = head.reduced([]), twin.reduced([])
    assert torch.allclose(ours, theirs, rtol=1e-5)
    alike(gradients(ours, head), gradients(theirs, twin))
    alike(gradients(head.loss(), head), gradients(twin.loss(), twin))
    g = torch.linspace(-1, 1, N)
    alike(gradients(head.per_position() @ g, head), gradients(twin.per_position() @ g, twin))
    with torch.no_grad():
        assert torch.allclose(head.per_position(), twin.per_position(), rtol=1e-5, atol=1e-5)
        assert torch.allclose(head.loss(), twin.loss(), rtol=1e-5)


def wanted_of(kind, keeps, same):
    """A student and teachers over the same, or a teacher's own, projection."""
    torch.manual_seed(0)
    project = PROJECTIONS[kind]()
    other = project if same else PROJECTIONS[kind]()
    head = head_of(project, weight=0.7, total=173.0, worth=torch.rand(N))
    teachers = [head_of(other, seed=k + 1) for k in range(len(keeps))]
    divergences = []
    for k, (teacher, keep) in enumerate(zip(teachers, keeps)):
        divergences.append(Divergence("h", teacher, torch.tensor(keep), 40.0 + k, 0.3 + k, 2.0 - 0.5 * k))
    return head, divergences


ALL, SOME, NONE = [True] * 4, [False, True, False, True], [False] * 4


@pytest.mark.parametrize("keeps", [[ALL], [SOME], [NONE], [ALL, SOME], [NONE, SOME]])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_task_and_teachers_are_reduced_together_to_what_each_is_alone(kind, same, keeps):
    head, wanted = wanted_of(kind, keeps, same)
    twin = plain(head)
    ours = head.reduced(wanted)
    theirs = [twin.weight * twin.loss(), *(d.term(twin) for d in wanted)]
    assert torch.allclose(torch.stack(ours), torch.stack(theirs), rtol=1e-5, atol=1e-6)
    alike(gradients(sum(ours), head), gradients(sum(theirs), twin))
    alike(gradients(3.0 * sum(ours), head), gradients(3.0 * sum(theirs), twin))
    for number in range(len(ours)):  # and each of them by itself, or weighed otherwise
        if ours[number].requires_grad:
            alike(gradients(ours[number], head), gradients(theirs[number], twin))
    factors = torch.linspace(0.5, 2.0, len(ours))
    alike(gradients(torch.stack(ours) @ factors, head), gradients(torch.stack(theirs) @ factors, twin))


def test_terms_come_by_the_name_of_who_wants_them():
    head, wanted = wanted_of("linear", [ALL, SOME], True)
    task, added = reduced_terms({"h": head}, {"kd": wanted[:1], "other": wanted[1:], "none": []})
    assert list(task) == ["h"] and list(added) == ["kd", "other"]
    twin = plain(head)
    assert torch.allclose(added["kd"], wanted[0].term(twin), rtol=1e-5)
    assert torch.allclose(added["other"], wanted[1].term(twin), rtol=1e-5)


def test_drift_and_divergence_by_position_are_the_plain_ones():
    head, wanted = wanted_of("odd", [ALL], False)
    teacher, twin = wanted[0].teacher, plain(head)
    for temperature in (1.0, 2.0):
        ours, theirs = (h.divergence_per_position(teacher, temperature) for h in (head, twin))
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        alike(gradients(ours.sum(), head), gradients(theirs.sum(), twin))
    with torch.no_grad():
        assert torch.allclose(head.kl_per_position(teacher), twin.kl_per_position(teacher), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_a_drawn_score_is_the_log_likelihood_of_what_was_drawn(kind):
    torch.manual_seed(0)
    head = head_of(PROJECTIONS[kind]())
    target = head.sampled(torch.Generator().manual_seed(5)).target
    score = head.drawn_score(torch.Generator().manual_seed(5))
    twin = plain(head)
    twin.target = target
    theirs = twin.log_likelihood_per_position().sum()
    assert torch.allclose(score, theirs, rtol=1e-4)
    alike(gradients(score, head), gradients(theirs, twin), 1e-4)


def test_draws_follow_the_prediction():
    hidden = torch.tensor([[0.0, 1.0, 2.0, -60.0, 0.5, -90.0]])
    head = Categorical(
        target=torch.zeros(40_000, dtype=torch.long), row=torch.zeros(40_000, dtype=torch.long), unit="tokens",
        hidden=hidden.expand(40_000, 6), project=lambda h: h,
    )  # fmt: skip
    assert head.large
    shares = torch.bincount(head.sampled(torch.Generator().manual_seed(0)).target, minlength=6) / 40_000
    assert (shares - hidden[0].softmax(-1)).abs().max() < 0.01
    assert shares[3] == shares[5] == 0


def test_bfloat16_autocast_is_as_near_as_the_plain_computation_under_it():
    torch.manual_seed(0)
    head = head_of(linear())
    teacher = head_of(linear(), seed=1)
    exact = plain(head)
    wanted = [Divergence("h", teacher, torch.tensor(ALL), 100.0, 1.0, 2.0)]
    truth = sum(exact.reduced(wanted))
    with torch.autocast("cpu", torch.bfloat16):
        twin = plain(head)
        theirs, ours = sum(twin.reduced(wanted)), sum(head.reduced(wanted))
    assert ours.dtype == torch.float32 and abs(ours - truth) <= max(2 * abs(theirs - truth), 2e-3 * truth)
    want, got, plainly = (gradients(loss, h)[0] for loss, h in ((truth, exact), (ours, head), (theirs, twin)))
    assert got.dtype == want.dtype
    assert (got - want).norm() <= 2 * (plainly - want).norm() + 1e-6


def test_all_logits_never_exist_at_once():
    seen = []

    def project(hidden):
        seen.append(len(hidden))
        return hidden @ table

    table = torch.randn(WIDTH, CLASSES, requires_grad=True)
    head, teacher = head_of(project), head_of(project, seed=1)
    sum(head.reduced([Divergence("h", teacher, torch.tensor(ALL), 100.0)])).backward()
    head.per_position().sum().backward()
    head.drawn_score().backward()
    head.kl_per_position(teacher).sum().backward()
    assert max(seen) <= 12


def test_an_extreme_prediction_stays_finite():
    head = head_of(linear(), scale=300.0)
    assert head.large and head.loss().isfinite() and all(g.isfinite().all() for g in gradients(head.loss(), head))
    assert torch.allclose(head.loss(), plain(head).loss(), rtol=1e-5)
