import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from ttsadapt.adapters import effective_weights
from ttsadapt.analysis.fisher import fisher
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.ewc import EWC

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import ToyLM, dataset

LAYERS = ["layers.0.linear", "layers.1.conv"]


def studied(tmp_path, strength=3.0, model=None):
    model = model or ToyLM().eval()
    features = dataset(tmp_path)
    study = Study(model, features, features, tmp_path / "cache", 0, torch.Generator().manual_seed(0))
    ewc = EWC(strength=strength, frames=80)
    ewc.study(study)
    return model, ewc, features


def information(tmp_path):
    generator = torch.Generator().manual_seed(0)
    features = dataset(tmp_path)
    torch.randperm(len(features), generator=generator)  # which utterances are drawn comes first
    return fisher(ToyLM().eval(), features.batches(80, generator), generator)


def lora(model, layers=LAYERS, **options):
    torch.manual_seed(1)
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4.0, target_modules=layers, **options), model)
    return {id(p) for n, p in model.named_parameters() if "lora_" in n}


def shake(model, trained, size=0.1):
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in trained:
                parameter.add_(size * torch.randn_like(parameter))


def expected(tmp_path, model, strength=3.0):
    """By the definition, from the explicitly merged weights."""
    start = dict(ToyLM().named_parameters())
    known = information(tmp_path)
    return strength / 2 * sum((known[n] * (w - start[n]).square()).sum() for n, w in effective_weights(model).items())


BATCH = {"origin": torch.zeros(2, dtype=torch.long)}


def test_full_fine_tuning(tmp_path):
    model, ewc, _ = studied(tmp_path)
    trained = {id(p) for p in model.parameters()}
    ewc.ready(model, trained)
    assert ewc.penalty(BATCH, {}).item() == 0
    shake(model, trained)
    torch.testing.assert_close(ewc.penalty(BATCH, {}), expected(tmp_path, model))
    ewc.penalty(BATCH, {}).backward()
    start, known = dict(ToyLM().named_parameters()), information(tmp_path)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 3.0 * known[name] * (parameter.detach() - start[name]))


@pytest.mark.parametrize("whole", [(), ("layers.0.linear.base_layer.weight", "heads.0.bias")], ids=["lora", "lora and weights"])
@pytest.mark.parametrize("dora", [False, True])
def test_the_penalty_on_lora_is_that_on_the_merged_weight(tmp_path, whole, dora):
    model, ewc, _ = studied(tmp_path)
    trained = lora(model, use_dora=dora) | {id(p) for n, p in model.named_parameters() if n in whole}
    ewc.ready(model, trained)
    assert ewc.penalty(BATCH, {}).item() == pytest.approx(0, abs=1e-12)
    shake(model, trained)
    parameters = [p.requires_grad_(True) for p in model.parameters() if id(p) in trained]  # as the Learner does
    wanted = expected(tmp_path, model)
    torch.testing.assert_close(ewc.penalty(BATCH, {}), wanted, rtol=1e-4, atol=0)
    ours = torch.autograd.grad(ewc.penalty(BATCH, {}), parameters)
    theirs = torch.autograd.grad(wanted, parameters)
    assert all(g.any() for g in ours)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)


def test_lora_keeps_no_copy_of_the_base_and_nothing_goes_into_a_checkpoint(tmp_path):
    model, ewc, _ = studied(tmp_path)
    ewc.ready(model, lora(model))
    held = sum(b.numel() for b in ewc.buffers() if b is not None)
    assert held == sum(model.get_submodule(n).base_layer.weight.numel() for n in LAYERS)
    assert ewc.state_dict() == {} and list(ewc.parameters()) == []


def test_an_adapter_that_does_not_start_at_zero_is_held_where_it_starts(tmp_path):
    model, ewc, _ = studied(tmp_path)
    trained = lora(model, ["layers.0.linear"], init_lora_weights="pissa")
    ewc.ready(model, trained)
    assert ewc.penalty(BATCH, {}).item() == 0
    shake(model, trained)
    torch.testing.assert_close(ewc.penalty(BATCH, {}), expected(tmp_path, model), rtol=1e-4, atol=0)


def test_strength_is_in_nats_per_position_of_source_data(tmp_path):
    """Strength 1 at a small change is the KL that the source data sees."""
    model, ewc, features = studied(tmp_path, strength=1.0)
    trained = {id(p) for p in model.parameters()}
    ewc.ready(model, trained)
    batches = list(features.batches(200))
    with torch.no_grad():
        before = [model(batch)["codebook0"] for batch in batches]
        _ = [head.logits for head in before]
        start = [p.clone() for p in model.parameters()]
        predicted = measured = 0.0
        for seed in range(20):
            torch.manual_seed(seed)
            for parameter, value in zip(model.parameters(), start):
                parameter.copy_(value + 5e-3 * torch.randn_like(value))
            predicted += ewc.penalty(BATCH, {}).item()
            measured += torch.cat([model(b)["codebook0"].kl_per_position(base) for b, base in zip(batches, before)]).mean().item()
    assert predicted / measured == pytest.approx(1, abs=0.35), "one pass over 24 utterances: a rough estimate"


def test_it_holds_the_model_back(tmp_path):
    """Fitting other data with a strong penalty leaves the old predictions nearer than without."""
    drift = {}
    for strength in (0.0, 30.0):
        model, ewc, features = studied(tmp_path, strength)
        ewc.ready(model, {id(p) for p in model.parameters()})
        batch = features.collate(features.ids)
        with torch.no_grad():
            old = model(batch)["codebook0"]
            _ = old.logits
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        other = batch | {"tokens": (batch["tokens"] * 0 + 1)}
        for _ in range(30):
            optimizer.zero_grad()
            loss = model(other)["codebook0"].loss() + ewc.penalty(batch, {})
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            drift[strength] = model(batch)["codebook0"].kl_per_position(old).mean().item()
    assert drift[30.0] < 0.5 * drift[0.0]


def test_the_information_is_estimated_once(tmp_path):
    studied(tmp_path)
    (file,) = (tmp_path / "cache").glob("fisher-*.safetensors")
    stamp = file.stat().st_mtime_ns
    studied(tmp_path, strength=7.0)
    assert file.stat().st_mtime_ns == stamp and len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


def test_nothing_to_hold_is_one_clear_line(tmp_path):
    model, ewc, _ = studied(tmp_path)
    with pytest.raises(ConfigError, match=r"strategy.ewc: no Fisher information") as error:
        ewc.ready(model, {id(torch.nn.Parameter(torch.ones(2)))})
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"strategy.ewc.strength=-1"):
        EWC(strength=-1)
