"""peft's options through our config: what they do to the layers, to the weights in effect, to teachers and to the saved adapter."""

import copy
import math
import sys
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import ToyLM, dataset

from ttsadapt.adapters import effective_weights, keeps_base, merged
from ttsadapt.analysis.information import read
from ttsadapt.analysis.ranking import Settings
from ttsadapt.backbones.base import TARGET
from ttsadapt.data.features import totals
from ttsadapt.errors import ConfigError
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Study, generator
from ttsadapt.strategies.ewc import EWC
from ttsadapt.strategies.kd import KD
from ttsadapt.strategies.lora import LoRA
from ttsadapt.where.ends import First, Last
from ttsadapt.where.explicit import Explicit
from ttsadapt.where.ranked import Ranks

LINEAR = ["*.linear"]
OPTIONS = {
    "plain": {},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "gaussian": {"init": "gaussian"},
    "patterns": {"rank_pattern": {"layers.0.*": 3}, "alpha_pattern": {"*.conv": 1.5}},
    "orthogonal": {"init": "orthogonal", "layers": LINEAR},
    "PiSSA": {"init": "pissa", "layers": LINEAR},
    "OLoRA": {"init": "olora", "layers": LINEAR},
    "DoRA from PiSSA": {"init": "pissa", "dora": True, "layers": LINEAR},
    "rsLoRA from OLoRA, two ranks": {"init": "olora", "rslora": True, "layers": LINEAR, "rank_pattern": {"layers.1.*": 4}},
}
MOVED = {"PiSSA", "OLoRA", "DoRA from PiSSA", "rsLoRA from OLoRA, two ranks"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("lora"))


class Told(ToyLM):
    """Says its speaker in every token."""

    def forward(self, batch):
        return super().forward(batch | {"tokens": batch["label"][:, 1:].expand_as(batch["tokens"]).contiguous()})


def build(data, tmp_path, others=None, backbone=None, **options):
    strategies = {"lora": LoRA(**{"rank": 2, "alpha": 4.0} | options), **(others or {})}
    backbone = backbone or ToyLM()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    claims = adapt(backbone, strategies, lambda name: Study(backbone, data, data, tmp_path, 0, generator(0, name)))
    return Learner(backbone, strategies, claims, lambda groups: torch.optim.SGD(groups, lr=0.1), base_hash="b")


def batch_of(data):
    batch = data.collate(data.ids[:4])
    return batch | {"origin": torch.full((4,), TARGET), "totals": totals([(TARGET, data.lengths[i]) for i in batch["ids"]])}


def logits(backbone, data):
    backbone.eval()
    with torch.no_grad():
        return backbone(batch_of(data))["codebook0"].logits


def train(learner, data, steps=5):
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=0.02)
    learner.train()
    for _ in range(steps):
        optimizer.zero_grad()
        sum(learner.terms(batch_of(data)).values()).backward()
        optimizer.step()
    return learner


def adapters(backbone):
    return {n: m for n, m in backbone.named_modules() if isinstance(m, LoraLayer)}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_starts_from_the_base_trains_merges_and_comes_back(data, tmp_path, name):
    options = OPTIONS[name]
    base = ToyLM().eval()
    learner = build(data, tmp_path, **options)
    torch.testing.assert_close(logits(learner.backbone, data), logits(base, data), atol=1e-5, rtol=1e-5)
    for weight, start in zip(effective_weights(learner.backbone).values(), base.parameters()):
        torch.testing.assert_close(weight, start, atol=1e-6, rtol=1e-5)
    assert keeps_base(learner.backbone) == (name not in MOVED)

    tuned = logits(train(learner, data).backbone, data)
    assert (tuned - logits(base, data)).abs().max() > 1e-3
    plain = ToyLM()
    plain.load_state_dict(merged(learner.backbone))
    torch.testing.assert_close(logits(plain, data), tuned, atol=1e-5, rtol=1e-4)

    state = {"state_dict": copy.deepcopy(learner.changed_state()), "base": "b"}
    again = build(data, tmp_path, **options)
    again.load_state_dict(again.completed(state))
    torch.testing.assert_close(logits(again.backbone, data), tuned, atol=1e-6, rtol=1e-6)

    learner.strategies["lora"].save(learner.backbone, tmp_path)
    bare = ToyLM()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing.*")
        PeftModel.from_pretrained(bare, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(bare, data), tuned, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_teacher_is_the_base_and_ewc_starts_at_nothing(data, tmp_path, name):
    """With adapters off, PiSSA's and OLoRA's model is not the base: then the teacher is a copy."""
    others = {"kd": KD(), "ewc": EWC(strength=1.0, utterances=8, frames=60)}
    learner = build(data, tmp_path, others, **OPTIONS[name])
    assert bool(learner.strategies["kd"]._teacher) == (name in MOVED)
    first = learner.terms(batch_of(data))
    assert abs(first["kd"].item()) < 1e-6 and abs(first["ewc"].item()) < 1e-9
    before = {n: w.detach().clone() for n, w in effective_weights(learner.backbone).items()}
    train(learner, data)
    batch = batch_of(data)
    taught = learner.strategies["kd"]._teach(batch)["codebook0"].logits
    torch.testing.assert_close(taught, logits(ToyLM(), data), atol=1e-5, rtol=1e-5)
    after = effective_weights(learner.backbone)
    held = learner.strategies["ewc"]
    information = read(held._path, list(after))
    moved = [(i.tensors()[""], after[n] - before[n]) for n, i in information.items()]
    wanted = sum((f * d.detach().square()).sum().item() for f, d in moved) / 2
    assert wanted > 0 and held.penalty(batch, {}).item() == pytest.approx(wanted, rel=1e-3)


def test_ranks_and_alphas_of_single_layers(data, tmp_path):
    learner = build(data, tmp_path, rank_pattern={"layers.0.linear": 5, "layers.0.*": 3}, alpha_pattern={"*.conv": 1.5}, rslora=True)
    found = {n: (m.r["default"], m.scaling["default"]) for n, m in adapters(learner.backbone).items()}
    assert found == {
        "layers.0.linear": (5, pytest.approx(4 / math.sqrt(5))),
        "layers.0.conv": (3, pytest.approx(1.5 / math.sqrt(3))),
        "layers.1.linear": (2, pytest.approx(4 / math.sqrt(2))),
        "layers.1.conv": (2, pytest.approx(1.5 / math.sqrt(2))),
    }


def test_conv1d_layers_are_adapted_alone(data, tmp_path):
    learner = build(data, tmp_path, layers=["*.conv"])
    assert set(adapters(learner.backbone)) == {"layers.0.conv", "layers.1.conv"}
    before = logits(learner.backbone, data)
    assert (logits(train(learner, data).backbone, data) - before).abs().max() > 1e-3


def test_adapters_lie_in_the_chosen_blocks_only(data, tmp_path):
    inside = {
        "backbone.0": First(1), "backbone.1": Last(1), "both": First(2), "named": Explicit(["backbone.1"]),
    }  # fmt: skip
    got = {n: set(adapters(build(data, tmp_path, where=w).backbone)) for n, w in inside.items()}
    zero, one = {"layers.0.linear", "layers.0.conv"}, {"layers.1.linear", "layers.1.conv"}
    assert got == {"backbone.0": zero, "backbone.1": one, "both": zero | one, "named": one}
    mixed = build(data, tmp_path, where=Last(1), layers=LINEAR)
    assert set(adapters(mixed.backbone)) == {"layers.1.linear"}


def test_a_ranked_choice_leaves_its_analysis_with_the_run(tmp_path):
    data = dataset(tmp_path / "many", 120)
    settings = Settings(utterances=120, epochs=30, width=16, pool=6)
    learner = build(data, tmp_path / "cache", backbone=Told(), where=Ranks(["highest"], analysis=settings))
    ((group, name),) = learner.strategies["lora"].where.blocks(learner.backbone)
    assert set(adapters(learner.backbone)) == {f"layers.{name}.linear", f"layers.{name}.conv"} and group == "backbone"
    learner.strategies["lora"].save(learner.backbone, tmp_path / "run")
    assert (tmp_path / "run" / "layers.json").is_file() and (tmp_path / "run" / "adapter").is_dir()


def test_the_draw_of_the_adapter_does_not_depend_on_where(data, tmp_path):
    """A choice with a draw of its own changes no other draw."""
    from ttsadapt.where.random import Random

    drawn = build(data, tmp_path, where=Random(2)).state_dict()
    plain = build(data, tmp_path).state_dict()
    assert all(torch.equal(drawn[n], plain[n]) for n in plain) and drawn.keys() == plain.keys()


WRONG = {
    "an init that needs data": ({"init": "eva"}, "strategy.lora.init=eva: give true, gaussian"),
    "an init that is no start": ({"init": False}, "strategy.lora.init=False"),
    "an init that freezes": ({"init": "mica"}, "strategy.lora.init=mica"),
    "an init that is another when it is read back": ({"init": "pissa_niter_4"}, "strategy.lora.init=pissa_niter_4"),
    "a misspelt init": ({"init": "pisa"}, "strategy.lora.init=pisa"),
    "PiSSA on a convolution": ({"init": "pissa"}, "init=pissa is for linear layers, and layers.0.conv is none"),
    "OLoRA on a convolution": ({"init": "olora"}, "init=olora is for linear layers"),
    "orthogonal on a convolution": ({"init": "orthogonal"}, "init=orthogonal is for linear layers"),
    "an odd orthogonal rank": ({"init": "orthogonal", "layers": LINEAR, "rank": 3}, "rank=3: init=orthogonal takes an even rank"),
    "more than PiSSA can find": ({"init": "pissa", "layers": LINEAR, "rank": 7}, "rank=7: init=pissa takes a rank of at most 6"),
    "a rank for nothing": ({"rank_pattern": {"decoder.*": 3}}, r"rank_pattern: 'decoder.\*' matches none of the 4 adapted layers"),
    "an alpha for nothing": ({"alpha_pattern": {"layers.0.*": 3}, "where": Last(1)}, "alpha_pattern: 'layers.0.*' matches none of the 2"),
    "nothing left": ({"where": Last(1), "layers": ["layers.0.*"]}, r"strategy.lora: none of the adaptable layers .* inside backbone.1"),
    "no such layer": ({"layers": ["encoder.*"]}, "encoder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_clear_line(data, tmp_path, case):
    options, words = WRONG[case]
    with pytest.raises(ConfigError, match=words) as error:
        build(data, tmp_path, **options)
    assert "\n" not in str(error.value)
