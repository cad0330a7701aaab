import copy
from typing import ClassVar

import pytest
import torch

from analysis.toys import ToyLM, ToyMel, dataset
from ttsadapt.backbones.base import SOURCE, TARGET
from ttsadapt.data.features import collate, totals
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Study, generator
from ttsadapt.strategies.ewc import EWC
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.kd import KD, untuned
from ttsadapt.strategies.lora import LoRA
from ttsadapt.strategies.partial import Partial
from ttsadapt.strategies.rehearsal import Rehearsal
from ttsadapt.where.ends import First, Last
from ttsadapt.where.explicit import Explicit

MAKE = {
    "full": Full,
    "partial": lambda: Partial(First(1)),
    "lora": lambda: LoRA(rank=2, alpha=4.0),
    "last": lambda: LoRA(rank=2, alpha=4.0, where=Last(1)),
    "ewc": lambda: EWC(strength=2.0, utterances=8, frames=60),
    "kd": KD,
    "rehearsal": Rehearsal,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("toy"))


def build(names, data, tmp_path, backbone=None):
    backbone = backbone or ToyLM()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    strategies = {name: MAKE[name]() for name in names}

    def look(name):
        return Study(backbone, data, data, tmp_path, 0, generator(0, name))

    claims = adapt(backbone, strategies, look)
    return Learner(backbone, strategies, claims, lambda groups: torch.optim.SGD(groups, lr=0.1), base_hash="b")


def batch_of(data, origins=(TARGET, TARGET, SOURCE, SOURCE), rehearsed=True):
    batch = data.collate(data.ids[: len(origins)])
    rows = [(o, data.lengths[i]) for o, i in zip(origins, batch["ids"])]
    return batch | {"origin": torch.tensor(origins), "totals": totals(rows), "rehearsed": rehearsed}


def train(learner, data, steps=3):
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.3)
    learner.train()
    seen = []
    for _ in range(steps):
        terms = learner.terms(batch_of(data))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        seen.append({n: t.item() for n, t in terms.items()})
    return seen


def test_the_order_of_strategies_changes_nothing(data, tmp_path):
    one = build(["lora", "ewc", "kd", "rehearsal"], data, tmp_path)
    other = build(["rehearsal", "kd", "ewc", "lora"], data, tmp_path)
    assert train(one, data) == train(other, data)
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_strategies_that_train_nothing_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match=r"strategy=\[kd,rehearsal\] trains nothing"):
        build(["kd", "rehearsal"], data, tmp_path)


def test_lora_trains_only_itself_and_the_rest_is_in_eval_mode(data, tmp_path):
    learner = build(["lora"], data, tmp_path)
    trained = [n for n, p in learner.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in n for n in trained)
    before = {n: p.clone() for n, p in learner.named_parameters() if not p.requires_grad}
    train(learner, data)
    assert all(torch.equal(p, before[n]) for n, p in learner.named_parameters() if n in before)
    assert not learner.backbone.embed.training and learner.backbone.layers[0].training


class Normed(ToyLM):
    """A batch norm in each block, behind its linear layer."""

    def __init__(self):
        super().__init__()
        for layer in self.layers:
            size = layer.linear.out_features
            layer.linear = torch.nn.Sequential(layer.linear, AcrossChannels(size))

    adaptable = ("layers.*.linear.0", "layers.*.conv")


class AcrossChannels(torch.nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.mT).mT


@pytest.mark.parametrize(("name", "moving"), [("full", [0, 1]), ("partial", [0]), ("lora", [])])
def test_running_statistics_move_only_where_weights_do(name, moving, data, tmp_path):
    learner = build([name], data, tmp_path, Normed())
    norms = [m for m in learner.modules() if isinstance(m, AcrossChannels)]
    before = [(n.running_mean.clone(), n.running_var.clone(), n.num_batches_tracked.clone()) for n in norms]
    train(learner, data)
    same = [torch.equal(n.running_mean, m) and torch.equal(n.running_var, v) for n, (m, v, _) in zip(norms, before)]
    counted = [int(n.num_batches_tracked - c) for n, (*_, c) in zip(norms, before)]
    assert same == [i not in moving for i in range(2)]
    assert counted == [3 * (i in moving) for i in range(2)]


def trained(learner):
    return {n for n, p in learner.named_parameters() if p.requires_grad}


def test_partial_trains_whole_blocks(data, tmp_path):
    learner = build(["partial"], data, tmp_path)
    assert trained(learner) == {n for n, _ in learner.named_parameters() if "layers.0." in n}


def test_on_disjoint_blocks_full_weights_and_lora_combine(data, tmp_path):
    learner = build(["partial", "last"], data, tmp_path)
    bare = {n for n, _ in learner.named_parameters() if "layers.0." in n}
    lora = {n for n, _ in learner.named_parameters() if "layers.1." in n and ".lora_" in n}
    assert trained(learner) == bare | lora and len(bare) == len(lora) == 4
    before = {n: p.clone() for n, p in learner.named_parameters()}
    train(learner, data)
    moved = {n for n, p in learner.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained(learner)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["full", "lora"], r"strategy=\[full,lora\] contradict each other in backbone.0, backbone.1: full trains"),
        (["full", "last"], r"strategy=\[full,last\] contradict each other in backbone.1: "),
        (["partial", "lora"], r"strategy=\[partial,lora\] contradict each other in backbone.0: "),
        (["partial", "lora", "kd", "ewc"], "contradict each other in backbone.0: "),
    ],
)
def test_full_weights_and_lora_on_the_same_blocks_are_refused(data, tmp_path, names, words):
    with pytest.raises(ConfigError, match=words) as error:
        build(names, data, tmp_path)
    assert "\n" not in str(error.value)


def test_full_weights_that_lie_under_no_adapter_are_no_contradiction(data, tmp_path):
    class Parts(ToyLM):
        components: ClassVar = {"tables": ("embed.*",), "first": ("layers.0.*",)}

    MAKE["tables"] = lambda: Full(components=["tables"])
    MAKE["first"] = lambda: Full(components=["first"])
    MAKE["two"] = lambda: Partial(Explicit(["backbone.0"]))
    assert len(trained(build(["tables", "lora", "kd", "ewc", "rehearsal"], data, tmp_path, Parts()))) == 1 + 8
    assert len(trained(build(["first", "two"], data, tmp_path, Parts()))) == 4, "two may train the same weights"
    with pytest.raises(ConfigError, match=r"\[first,lora\] contradict each other in backbone.0: "):
        build(["first", "lora"], data, tmp_path, Parts())


@pytest.mark.parametrize("how", ["full", "lora"])
def test_the_teacher_is_the_untuned_model_for_ever(data, tmp_path, how):
    original = ToyLM().eval()
    learner = build([how, "kd"], data, tmp_path)
    batch = batch_of(data)
    assert learner.terms(batch)["kd"].abs() < 1e-6
    train(learner, data)
    assert learner.terms(batch)["kd"] > 1e-6
    taught = learner.strategies["kd"]._teach(batch)["codebook0"].logits
    assert torch.allclose(taught, original(batch)["codebook0"].logits, atol=1e-6)
    assert learner.backbone.layers[0].training, "the teacher's eval mode must not stay on"
    assert all(p.requires_grad == (how == "full" or ".lora_" in n) for n, p in learner.backbone.named_parameters())


def test_kd_is_a_mean_over_the_positions_it_looks_at(data, tmp_path):
    learner = build(["full", "kd"], data, tmp_path)
    train(learner, data)
    batch = batch_of(data)
    heads = learner.heads(batch)
    taught = learner.strategies["kd"]._teach(batch)["codebook0"]
    per_position = heads["codebook0"].divergence_per_position(taught, 2.0)
    old = (batch["origin"] == SOURCE)[heads["codebook0"].row]
    batch["totals"]["frames"][SOURCE] = int(old.sum())
    assert torch.allclose(learner.terms(batch)["kd"], per_position[old].mean(), rtol=1e-5)
    # A batch with more padding and the same utterances gives the same number.
    assert torch.allclose(learner.terms(batch)["kd"], learner.terms({**batch})["kd"])


def test_parts_of_a_step_add_up_to_the_step(data, tmp_path):
    learner = build(["full", "kd"], data, tmp_path, ToyMel())
    train(learner, data)
    whole = batch_of(data)
    want = learner.terms(whole)
    got = dict.fromkeys(want, 0.0)
    for rows in ([0, 2], [1, 3]):
        part = collate(data.frontend, [(data, data.ids[i]) for i in rows])
        part |= {"origin": whole["origin"][rows], "totals": whole["totals"], "share": 0.5, "rehearsed": True}
        for name, term in learner.terms(part).items():
            got[name] += 0.5 * term
    assert all(torch.allclose(want[n], got[n], rtol=1e-5) for n in want)


def test_a_checkpoint_holds_what_training_changed_and_fits_only_its_own_base(data, tmp_path):
    learner = build(["lora"], data, tmp_path)
    train(learner, data)
    saved: dict = {}
    learner.on_save_checkpoint(saved)
    assert saved["state_dict"] and all(".lora_" in n for n in saved["state_dict"])
    fresh = build(["lora"], data, tmp_path)
    fresh.load_state_dict(fresh.completed(copy.deepcopy(saved)))
    batch = batch_of(data)
    tuned = learner.eval().backbone(batch)["codebook0"].logits
    assert torch.equal(fresh.eval().backbone(batch)["codebook0"].logits, tuned)
    with untuned(fresh.backbone) as base:
        assert not torch.allclose(base(batch)["codebook0"].logits, tuned), "an adapter that does nothing"
    with pytest.raises(CheckpointError, match="belongs to base"):
        fresh.completed(saved | {"base": "another"})
    with pytest.raises(CheckpointError, match="is of other strategies"):
        build(["full"], data, tmp_path).completed(saved)
    with pytest.raises(CheckpointError, match="not written by"):
        fresh.completed({"epoch": 3})
