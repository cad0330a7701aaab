"""Three strategies and more at once: trained, saved in the middle, taken up again to the same bits. On the smallest backbone."""

import copy
import itertools

import pytest
import torch

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.run import build_data, build_learner

TOGETHER = [
    "lora ewc kd", "lora ewc rehearsal", "lora kd rehearsal", "lora ewc kd rehearsal", "full ewc kd", "full ewc rehearsal",
    "full kd rehearsal", "full ewc kd rehearsal", "csp ewc rehearsal", "partial ewc kd", "partial kd rehearsal", "partial lora ewc",
    "partial lora rehearsal", "partial lora ewc kd", "lora ewc generative_rehearsal", "full kd generative_rehearsal",
]  # fmt: skip
APART = ["where@strategy.partial.where=first", "where@strategy.lora.where=last", "strategy.partial.where.n=1", "strategy.lora.where.n=1"]
"""full weights and adapters are for different blocks"""
QUICK = {
    "csp": ["strategy.csp.epochs=10", "strategy.csp.utterances=112", "data.source_train=112"],
    "ewc": ["strategy.ewc.utterances=8", "strategy.ewc.budget=0.01", "strategy.ewc.every=2", "strategy.ewc.watched=2"],
    "rehearsal": ["strategy.rehearsal.buffer=7", "strategy.rehearsal.keep._target_=ttsadapt.data.buffers.Herding"],
    "generative_rehearsal": [
        "strategy.generative_rehearsal.utterances=6", "strategy.generative_rehearsal.per=1000",
        "strategy.generative_rehearsal.recogniser_steps=1",
    ],
}  # fmt: skip
"""The multiplier moves at the third batch: what is resumed at the second must know when it was seen last."""


def built(mini, together):
    quick = [o for name in together for o in QUICK.get(name, [])] + (APART if {"partial", "lora"} <= {*together} else [])
    cfg = mini("base=null", f"strategy=[{','.join(together)}]", "batch_frames=300", *quick)
    assembly = Assembly(cfg)
    ensure(assembly.corpus)
    ensure(*assembly.needs())
    learner, _ = build_learner(assembly)
    loader = build_data(assembly, learner).train_dataloader()
    loader.generator = torch.Generator().manual_seed(0)  # as `callbacks.state` has it: making an iterator draws from it
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=3e-3)
    return learner.train(), loader, optimizer


def endless(loader):
    while True:
        yield from loader


def steps(learner, loader, optimizer, count):
    """Every named term of every step, bit for bit."""
    told = []
    for batch in itertools.islice(loader, count):
        terms = learner.terms(batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        told.append({n: t.item() for n, t in terms.items()})
    return told


@pytest.mark.parametrize("together", [t.split() for t in TOGETHER], ids=[t.replace(" ", "+") for t in TOGETHER])
def test_they_train_and_resume(mini, together):
    learner, loader, optimizer = built(mini, together)
    torch.manual_seed(0)
    drawn = endless(loader)
    first = steps(learner, drawn, optimizer, 2)
    saved: dict = {"loader": loader.state_dict(), "optimizer": copy.deepcopy(optimizer.state_dict()), "torch": torch.get_rng_state()}
    learner.on_save_checkpoint(saved)
    saved["state_dict"] = {n: t.clone() for n, t in saved["state_dict"].items()}
    unbroken = steps(learner, drawn, optimizer, 2)
    assert all(torch.isfinite(torch.tensor(v)) for told in first + unbroken for v in told.values())
    for name in ("ewc", "kd"):
        assert all((name in told) == (name in together) for told in unbroken), "every term is there"
    if "ewc" in together:
        assert unbroken[0]["ewc"] > 0

    again, loader, optimizer = built(mini, together)
    again.load_state_dict(again.completed(saved))
    optimizer.load_state_dict(saved["optimizer"])
    loader.load_state_dict(saved["loader"])
    torch.set_rng_state(saved["torch"])
    assert steps(again, endless(loader), optimizer, 2) == unbroken
    ours, theirs = learner.changed_state(), again.changed_state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    if "ewc" in together:
        assert ours["strategies.ewc.budget.multiplier"] != 1.0
