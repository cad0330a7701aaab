"""Fisher information, the penalty and the divergence on a backbone of this framework, against what can be enumerated."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from ttsadapt.adapters import base_parameters, changed_names, merged
from ttsadapt.analysis.fisher import fisher
from ttsadapt.analysis.information import Whole, write
from ttsadapt.bench.speech import Layout, setting
from ttsadapt.strategies.ewc import EWC

LAYOUT = Layout(hidden=16, intermediate=24, blocks=2, heads=2, kv_heads=2, rows=21, targets=12, text=(2, 4), speech=(4, 7), utterances=4)
BATCH = {"origin": torch.zeros(2, dtype=torch.long)}


@pytest.fixture(scope="module")
def made():
    return setting(LAYOUT)


@pytest.fixture(scope="module")
def batches(made):
    return made.batches(2)


@pytest.fixture(scope="module")
def backbone(made):
    one = made.backbone.eval()
    with torch.no_grad():  # far from uniform predictions
        for p in one.parameters():
            p.add_(0.15 * torch.randn_like(p))
    return one


@pytest.fixture(scope="module")
def information(backbone, batches):
    return fisher(backbone, batches * 250, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exact(backbone, batches):
    """Sample by sample, every label of every position: sum_y p(y) (d log p(y) / d theta)^2, a mean over positions."""
    weights = list(base_parameters(backbone).values())
    total, count = [torch.zeros_like(w) for w in weights], 0
    for batch in batches:
        logs = backbone(batch)["tokens"].logits.log_softmax(-1)
        for position in logs:
            for log in position:
                for t, g in zip(total, torch.autograd.grad(log, weights, retain_graph=True, allow_unused=True)):
                    if g is not None:
                        t += log.detach().exp() * g.square()
            count += 1
    return {n: t / count for n, t in zip(base_parameters(backbone), total)}


def test_the_estimate_is_the_exact_diagonal(information, exact):
    """N x the squared gradient of the mean sampled loss over N positions."""
    ours, theirs = (torch.cat([f[n].flatten() for n in exact]) for f in (information, exact))
    assert (ours.sum() / theirs.sum()).item() == pytest.approx(1, abs=0.05)
    seen = theirs > 1e-7 * theirs.max()
    assert seen.float().mean() > 0.5
    assert torch.corrcoef(torch.stack([ours[seen].log(), theirs[seen].log()]))[0, 1] > 0.95


def test_half_the_weighed_square_of_a_small_step_is_the_measured_kl(backbone, batches, information):
    tuned = copy.deepcopy(backbone)
    predicted = measured = 0.0
    with torch.no_grad():
        for seed in range(40):
            g = torch.Generator().manual_seed(seed)
            for name, parameter in tuned.named_parameters():
                change = 2e-3 * torch.randn(parameter.shape, generator=g)
                parameter.copy_(backbone.get_parameter(name) + change)
                predicted += 0.5 * (information[name] * change.square()).sum().item()
            heads = [(tuned(b)["tokens"], backbone(b)["tokens"]) for b in batches]
            measured += torch.cat([now.kl_per_position(base) for now, base in heads]).mean().item()
    assert predicted / measured == pytest.approx(1, abs=0.1)


def test_the_penalty_on_a_merged_lora_is_that_on_the_explicit_weight(backbone, information, tmp_path):
    path = tmp_path / "fisher.safetensors"
    write(path, {n: Whole(f) for n, f in information.items()})
    adapted, plain = copy.deepcopy(backbone), copy.deepcopy(backbone)
    layers = [n for n, m in adapted.named_modules() if n.endswith(("q_proj", "down_proj"))]
    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=8.0, target_modules=layers), adapted)
    trained = {id(p) for n, p in adapted.named_parameters() if "lora_" in n}
    assert changed_names(adapted, trained) == [f"{n}.weight" for n in layers]
    under_lora, explicit = (EWC(decay=0.0, previous=str(path)) for _ in range(2))
    for ewc in (under_lora, explicit):
        ewc._path = path
    under_lora.ready(adapted, trained)
    explicit.ready(plain, {id(p) for p in plain.parameters()})
    with torch.no_grad():
        for p in adapted.parameters():
            if id(p) in trained:
                p.add_(0.1 * torch.randn_like(p))
    plain.load_state_dict(merged(adapted))
    assert under_lora.penalty(BATCH, {}).item() == pytest.approx(explicit.penalty(BATCH, {}).item(), rel=1e-4)
    assert explicit.penalty(BATCH, {}).item() > 0
