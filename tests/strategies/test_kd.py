"""Distillation: whose rows, from which teacher, at what strength, and what may be kept of the teacher on disk."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ttsadapt.adapters import Switchable
from ttsadapt.backbones.base import SOURCE, TARGET
from ttsadapt.data.features import totals
from ttsadapt.errors import ConfigError
from ttsadapt.heads import Categorical
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Strategy, Study, generator
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.kd import KD, untuned
from ttsadapt.strategies.lora import LoRA
from ttsadapt.strategies.partial import Partial
from ttsadapt.teachers import Likeliest, TopK

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import VOCABULARY, WIDTH, ToyFrontend, ToyLM, ToyMel, dataset


def build(tmp_path, kd, how=None, model=None, data=None):
    model, data = model or ToyLM(weights=(1.0, 0.5)), data or dataset(tmp_path)
    data.origin = TARGET
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    strategies = {"how": how or LoRA(rank=2, alpha=4.0), "kd": kd}
    claims = adapt(model, strategies, lambda name: Study(model, data, data, tmp_path / "cache", 0, generator(0, name)))
    return Learner(model, strategies, claims, lambda groups: torch.optim.SGD(groups, lr=0.1)), data


def shaken(learner):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def trained(learner):
    return [p for p in learner.parameters() if p.requires_grad]


def batch_of(data, origins=(TARGET,) * 4, which=slice(0, 4)):
    batch = data.collate(data.ids[which])
    rows = [(o, data.lengths[i]) for o, i in zip(origins, batch["ids"])]
    return batch | {"origin": torch.tensor(origins), "totals": totals(rows), "rehearsed": False}


@pytest.mark.parametrize("model", [lambda: ToyLM(weights=(1.0, 0.5)), ToyMel])
def test_kept_states_teach_what_the_live_teacher_does(tmp_path, model):
    live, data = build(tmp_path, KD(rows="target"), model=model())
    kept, _ = build(tmp_path, KD(rows="target", cache="states"), model=model(), data=data)
    shaken(live), shaken(kept)
    for which in (slice(0, 4), slice(7, 11)):  # other neighbours than when it was kept
        batch = batch_of(data, which=which)
        ours, theirs = kept.terms(batch), live.terms(batch)
        assert theirs["kd"] > 1e-3 and torch.allclose(ours["kd"], theirs["kd"], rtol=1e-5)
        gradients = [torch.autograd.grad(terms["kd"], trained(x)) for terms, x in ((ours, kept), (theirs, live))]
        for a, b in zip(*gradients):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_states_are_made_once_and_found_again(tmp_path, monkeypatch):
    _, data = build(tmp_path, KD(rows="target", cache="states"))
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == len(data)
    times = [f.stat().st_mtime_ns for f in files]
    build(tmp_path, KD(rows="target", cache="states", weight=3.0, temperature=4.0), data=data)
    assert [f.stat().st_mtime_ns for f in files] == times and sorted((tmp_path / "cache").rglob("*.safetensors")) == files


def test_half_precision_states_are_smaller_and_near(tmp_path):
    exact, data = build(tmp_path, KD(rows="target", cache="states"))
    half, _ = build(tmp_path, KD(rows="target", cache="states", precision="bfloat16"), data=data)
    sizes = [sum(f.stat().st_size for f in folder.rglob("*.safetensors")) for folder in sorted((tmp_path / "cache").glob("kd-*"))]
    assert min(sizes) < max(sizes)
    batch = batch_of(data)
    ours, theirs = (shaken(x).terms(batch)["kd"] for x in (half, exact))
    assert ours != theirs and torch.allclose(ours, theirs, rtol=0.05)


def test_top_k_is_the_whole_distribution_when_k_is_and_less_otherwise(tmp_path):
    live, data = build(tmp_path, KD(rows="target"))
    batch = batch_of(data)
    want = shaken(live).terms(batch)["kd"]
    whole, _ = build(tmp_path, KD(rows="target", cache="topk", k=VOCABULARY - 1), data=data)
    assert torch.allclose(shaken(whole).terms(batch)["kd"], want, rtol=1e-4)  # the rest is one class: nothing is lost
    some, _ = build(tmp_path, KD(rows="target", cache="topk", k=2), data=data)
    assert 0 < shaken(some).terms(batch)["kd"] < want  # joining classes can only bring two distributions nearer


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_pull_of_the_likeliest_is_the_gradient_of_their_divergence(temperature):
    torch.manual_seed(0)
    nought = torch.zeros(9, dtype=torch.long)
    head = Categorical(target=nought, row=nought, unit="tokens", hidden=3 * torch.randn(9, 40), project=lambda h: h)
    keeping = TopK(5, temperature)
    teacher = keeping.teacher(head, keeping.of(head))
    assert isinstance(teacher, Likeliest)
    logits = (3 * torch.randn(9, 40)).requires_grad_()
    value = teacher.kl_to(logits, temperature)
    (want,) = torch.autograd.grad(value.sum(), logits)
    for dim in (0, 1):
        student = logits.detach() if dim == 1 else logits.detach().T.contiguous()
        got, pull = teacher.pull(student, dim, slice(None), temperature)
        assert torch.allclose(got, value, rtol=1e-4, atol=1e-5)
        assert torch.allclose((pull if dim == 1 else pull.T) / temperature, want, rtol=1e-4, atol=1e-6)


def test_states_are_refused_where_the_output_layer_trains(tmp_path):
    learner, data = build(tmp_path, KD(rows="target", cache="states"), how=Full())
    with pytest.raises(ConfigError, match="the output layer trains") as error:
        learner.terms(batch_of(data))
    assert "\n" not in str(error.value)
    below, _ = build(tmp_path, KD(rows="target", cache="states"), how=Partial(random=1), data=data)
    assert below.terms(batch_of(data))["kd"].abs() < 1e-6 and not below.strategies["kd"]._teacher


class Drawing(ToyFrontend):
    def collate(self, items):
        batch = super().collate(items)
        return batch | {"heard": torch.rand(batch["tokens"].shape) > 0.3}


class Hearing(ToyLM):
    def forward(self, batch):
        return super().forward(batch | {"tokens": batch["tokens"] * batch["heard"]})


def test_what_is_drawn_anew_for_every_batch_cannot_be_kept(tmp_path):
    data = dataset(tmp_path)
    data.frontend = Drawing()
    with pytest.raises(ConfigError, match="Drawing draws heard anew") as error:
        build(tmp_path, KD(rows="target", cache="states"), model=Hearing(), data=data)
    assert "\n" not in str(error.value) and not list((tmp_path / "cache").rglob("*.safetensors"))
    build(tmp_path, KD(rows="target", cache="states"), model=ToyLM(), data=data)  # drawn, but the teacher does not look at it


def test_rows_must_be_named_to_be_kept():
    with pytest.raises(ConfigError, match=r"strategy\.kd\.rows=target, source or both"):
        KD(cache="states")


@pytest.mark.parametrize(("rows", "seen"), [("target", [0, 1]), ("source", [2, 3]), ("both", [0, 1, 2, 3])])
def test_rows_say_whose_utterances_count(tmp_path, rows, seen):
    learner, data = build(tmp_path, KD(rows=rows))
    batch = batch_of(data, (TARGET, TARGET, SOURCE, SOURCE))
    heads = shaken(learner).heads(batch)
    taught = learner.strategies["kd"]._teach(batch)
    want = 0.0
    for name, head in heads.items():
        chosen = torch.isin(head.row, torch.tensor(seen))
        frames = sum(data.lengths[batch["ids"][i]]["frames"] for i in seen)
        want = want + head.weight * head.divergence_per_position(taught[name], 2.0)[chosen].sum() / frames
    assert torch.allclose(learner.terms(batch)["kd"], want, rtol=1e-5)


def test_the_gradient_keeps_its_size_over_temperatures(tmp_path):
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        learner, data = build(tmp_path, KD(rows="target", temperature=temperature))
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in trained(learner):
                parameter.add_(0.1 * torch.randn_like(parameter))
        gradients = torch.autograd.grad(learner.terms(batch_of(data))["kd"], trained(learner))
        sizes.append(torch.cat([g.flatten() for g in gradients]).norm())
    assert max(sizes) / min(sizes) < 1.3, sizes


class Bump(nn.Module, Switchable):
    """An adapter that is none of peft's, and does something from the start."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer, self.shift = layer, nn.Parameter(torch.full((WIDTH,), 0.3))

    def forward(self, x):
        return self.base_layer(x) if self.off else self.base_layer(x) + self.shift


class Bumping(Strategy):
    def attach(self, backbone):
        backbone.layers[0].linear = Bump(backbone.layers[0].linear)

    def trainable(self, backbone):
        return [backbone.layers[0].linear.shift]


def test_any_switchable_adapter_is_off_in_the_teacher(tmp_path):
    original = ToyLM(weights=(1.0, 0.5)).eval()
    learner, data = build(tmp_path, KD(rows="target"), how=Bumping())
    kd, batch = learner.strategies["kd"], batch_of(data)
    assert not kd._teacher, "nothing of the base trains: no second copy"
    want = original(batch)
    for name, head in kd._teach(batch).items():
        assert torch.equal(head.logits, want[name].logits)
    bump = learner.backbone.layers[0].linear
    assert not bump.off and learner.terms(batch)["kd"] > 1e-4
    bump.off = True
    with untuned(learner.backbone):
        pass
    assert bump.off, "left as it was found"


class BumpingMore(Bumping):
    def trainable(self, backbone):
        return [backbone.layers[0].linear.shift, *backbone.layers[1].parameters()]


def test_a_copy_of_the_base_has_its_adapters_off_too(tmp_path):
    original = ToyLM(weights=(1.0, 0.5)).eval()
    learner, data = build(tmp_path, KD(rows="target"), how=BumpingMore())
    kd, batch = learner.strategies["kd"], batch_of(data)
    assert kd._teacher
    shaken(learner)
    want = original(batch)
    for name, head in kd._teach(batch).items():
        assert torch.equal(head.logits, want[name].logits)
