"""Every strategy on every tiny backbone: it trains, it is saved and loaded, it speaks. New files in conf/ are found by themselves.

tests/tiny/<backbone>.yaml may hold overrides that make a backbone smaller still.
"""

from functools import lru_cache
from pathlib import Path

import pytest
import torch
import yaml

from ttsadapt.adapters import merged
from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.errors import UserError
from ttsadapt.heads import task_loss
from ttsadapt.run import build_learner

ROOT = Path(__file__).parents[1]
BACKBONES = sorted(p.stem for p in (ROOT / "conf/backbone").glob("*_tiny.yaml"))
STRATEGIES = sorted(p.stem for p in (ROOT / "conf/strategy").glob("*.yaml"))
QUICK = {
    "csp": ["strategy.csp.epochs=10", "strategy.csp.utterances=112", "data.source_train=112"],
    "generative_rehearsal": [
        "strategy.generative_rehearsal.utterances=3", "strategy.generative_rehearsal.per=1000",
        "strategy.generative_rehearsal.recogniser_steps=1",
    ],
}  # fmt: skip
"""of a strategy: probes can beat chance even on weights drawn at random"""
UNREADABLE = ("layer analysis: no label can be read off", "generative rehearsal: none of the")
"""... but need not: tokens that were made to say neither voice nor emotion hide both, and noise holds no phones. Then the refusal is
what is tested."""
UNFIT = "has no transformers decoder"
"""prefix tuning fills the cache of one"""


@lru_cache(maxsize=1)
def smaller(backbone: str) -> tuple[str, ...]:
    file = ROOT / f"tests/tiny/{backbone}.yaml"
    return tuple(yaml.safe_load(file.read_text())) if file.is_file() else ()


def learner_of(mini, backbone: str, strategies: list[str]):
    """(assembly, learner) as a run builds them, on weights drawn at random."""
    quick = [o for s in strategies for o in QUICK.get(s, [])]
    cfg = mini(f"backbone={backbone}", "base=null", f"strategy=[{','.join(strategies)}]", *smaller(backbone), *quick, small=False)
    assembly = Assembly(cfg)
    ensure(assembly.corpus)
    ensure(*assembly.needs())
    learner, _ = build_learner(assembly)
    return assembly, learner


def batch_of(assembly):
    """The four shortest utterances of the target, with the totals that the data module would give them."""
    (features,) = assembly.features("target.train")
    return features.collate(sorted(features.ids, key=lambda i: features.lengths[i]["frames"])[:4])


def values(learner, batch) -> dict[str, torch.Tensor]:
    learner.eval()
    with torch.no_grad():
        return {n: t.clone() for n, t in task_loss(learner.heads(batch)).items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_strategy_trains_a_backbone_and_comes_back_from_disk(mini, backbone, strategy, tmp_path):
    try:
        assembly, learner = learner_of(mini, backbone, names := [strategy])
    except UserError as error:
        assert "\n" not in str(error)
        if str(error).startswith(UNREADABLE) or UNFIT in str(error):
            return
        assert "trains nothing: add" in str(error)
        assembly, learner = learner_of(mini, backbone, names := ["lora", strategy])
    batch = batch_of(assembly)
    before = values(learner, batch)

    losses = fit(learner, batch, 30)
    assert all(torch.isfinite(torch.tensor(losses))), losses
    assert sum(losses[-5:]) < sum(losses[:5]), losses

    torch.save({"state_dict": learner.changed_state(), "base": learner.base_hash}, tmp_path / "last.ckpt")
    _, again = learner_of(mini, backbone, names)
    again.load_state_dict(again.completed(torch.load(tmp_path / "last.ckpt", weights_only=True)))
    after, loaded = values(learner, batch), values(again, batch)
    assert any(not torch.equal(before[n], after[n]) for n in before), "what was trained changes nothing"
    for name in after:
        assert torch.equal(after[name], loaded[name]), name

    request = assembly.base.backbone.frontend.request(assembly.utterances("target.test")[0])
    said, again_said = (model.backbone.synthesize([request])[0] for model in (learner, again))
    assert said.dim() == 1 and torch.isfinite(said).all() and said.abs().max() <= 1
    assert torch.equal(said, again_said)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_lora_acts_after_loading_and_merges_into_the_same_model(mini, backbone):
    assembly, learner = learner_of(mini, backbone, ["lora"])
    batch = batch_of(assembly)
    untouched = values(learner, batch)
    fit(learner, batch, 10)
    adapted = values(learner, batch)
    bare = Assembly(assembly.cfg).base.backbone
    bare.load_state_dict(merged(learner.backbone))
    bare.eval()
    with torch.no_grad():
        plain = {n: h.loss() for n, h in bare(batch).items()}
    assert any((adapted[n] - untouched[n]).abs() > 1e-4 for n in adapted), "the adapter is silent"
    for name, value in plain.items():
        assert value == pytest.approx(learner.eval().heads(batch)[name].loss().item(), abs=1e-4)


def fit(learner, batch, steps: int) -> list[float]:
    """Losses of so many steps on one batch, without Lightning."""
    learner.train()
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack(list(learner.terms(batch).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
