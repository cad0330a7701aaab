import copy
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from ttsadapt.adapters import effective_weights, merged
from ttsadapt.analysis.fisher import fisher
from ttsadapt.analysis.information import read, write
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Study
from ttsadapt.strategies.ewc import EWC

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import ToyLM, dataset

LAYERS = ["layers.0.linear", "layers.1.conv"]


def studied(tmp_path, strength=3.0, model=None, **settings):
    model = model or ToyLM().eval()
    features = dataset(tmp_path)
    study = Study(model, features, features, tmp_path / "cache", 0, torch.Generator().manual_seed(0))
    ewc = EWC(strength=strength, frames=80, **settings)
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


def test_what_it_cannot_hold_is_one_clear_line(tmp_path):
    model, ewc, _ = studied(tmp_path)
    model.generated = torch.nn.Linear(2, 2)  # as a hypernetwork does, beside the weights
    for trained in ({id(torch.nn.Parameter(torch.ones(2)))}, {id(p) for p in model.generated.parameters()}):
        with pytest.raises(ConfigError, match=r"strategy\.ewc: .*use kd instead") as error:
            ewc.ready(model, trained)
        assert "\n" not in str(error.value)
    write(ewc._path, {n: i.mapped(torch.zeros_like) for n, i in read(ewc._path, ["heads.0.bias"]).items()})
    with pytest.raises(ConfigError, match=r"strategy.ewc: no Fisher information .*heads\.0\.bias"):
        ewc.ready(model, {id(model.heads[0].bias)})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strength": -1}, "strength=-1"), ({"budget": 0}, "budget=0"), ({"budget": 0.1, "strength": 0}, "strength=0"),
        ({"every": 0}, "every=0"), ({"decay": 2}, "decay=2"), ({"previous": "there"}, "previous is given without"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=rf"strategy\.ewc\.{said}") as error:
        EWC(**wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["weights", "lora", "dora"])
def test_row_and_column_sums_in_place_of_the_diagonal(tmp_path, how):
    """The penalty is that of rows x columns / sum, in a fraction of the memory, and near that of the diagonal."""
    penalties = {}
    for rank1 in (False, True):
        model, ewc, _ = studied(tmp_path, rank1=rank1)
        trained = {id(p) for p in model.parameters()} if how == "weights" else lora(model, use_dora=how == "dora")
        ewc.ready(model, trained)
        assert ewc.penalty(BATCH, {}).item() == pytest.approx(0, abs=1e-12)
        shake(model, trained)
        parameters = [p.requires_grad_(True) for p in model.parameters() if id(p) in trained]
        penalty = ewc.penalty(BATCH, {})
        gradients = torch.autograd.grad(penalty, parameters)
        penalties[rank1] = penalty.item()
    start, known = dict(ToyLM().named_parameters()), read(ewc._path, [n for n, _ in ToyLM().named_parameters()])
    wanted = sum(
        3 / 2 * (known[n].chunk(0, len(w)).reshape(w.shape) * (w - start[n]).square()).sum() for n, w in effective_weights(model).items()
    )
    assert penalties[True] == pytest.approx(wanted.item(), rel=1e-4)
    assert penalties[True] == pytest.approx(penalties[False], rel=0.25)
    for a, b in zip(gradients, torch.autograd.grad(wanted, parameters)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    if how == "lora":
        assert sum(b.numel() for b in ewc.buffers()) == sum(sum(f.shape[:1]) + f[0].numel() for f in (start[f"{n}.weight"] for n in LAYERS))


def fitted(model, ewc, features, trained, steps, optimizer=None):
    """Fit nonsense, which tears at the old predictions; gives the optimiser."""
    batch = features.collate(features.ids)
    other = batch | {"tokens": batch["tokens"] * 0 + 1}
    parameters = [p.requires_grad_(True) for p in model.parameters() if id(p) in trained]
    optimizer = optimizer or torch.optim.Adam(parameters, 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(other)["codebook0"].loss() + ewc.penalty(batch, {})).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("how", ["weights", "lora"])
def test_a_budget_is_kept_on_the_measured_divergence(tmp_path, how):
    reached = {}
    for budget in (None, 0.04):
        model, ewc, features = studied(tmp_path, strength=0.1, budget=budget, every=5, watched=24)
        trained = {id(p) for p in model.parameters()} if how == "weights" else lora(model)
        ewc.ready(model, trained)
        fitted(model, ewc, features, trained, 300)
        batches, untouched = list(features.batches(200)), ToyLM().eval()
        with torch.no_grad():
            pairs = [(model(b)["codebook0"], untouched(b)["codebook0"]) for b in batches]
            reached[budget] = torch.cat([now.kl_per_position(base) for now, base in pairs]).mean().item()
        if budget:
            assert ewc.drift().item() == pytest.approx(reached[budget], rel=1e-3), "the watched utterances are all there are"
            assert set(ewc.metrics()) == {"nats", "kl", "strength"}
    assert reached[None] > 0.1, "without it there is something to keep"
    assert reached[0.04] == pytest.approx(0.04, rel=0.35), reached


def test_the_multiplier_survives_a_checkpoint(tmp_path):
    """Saved in the middle between two measurements: the rest goes as in the unbroken run, bit for bit."""
    states = []
    for broken in (False, True):
        model, ewc, features = studied(tmp_path, strength=1.0, budget=0.02, every=5)
        trained = {id(p) for p in model.parameters()}
        ewc.ready(model, trained)
        optimizer = fitted(model, ewc, features, trained, 13)
        if broken:
            saved = copy.deepcopy((model.state_dict(), ewc.state_dict(), optimizer.state_dict()))
            model, ewc, features = studied(tmp_path, strength=1.0, budget=0.02, every=5)
            trained = {id(p) for p in model.parameters()}
            ewc.ready(model, trained)
            model.load_state_dict(saved[0])
            ewc.load_state_dict(saved[1])
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            optimizer.load_state_dict(saved[2])
        fitted(model, ewc, features, trained, 12, optimizer)
        states.append({**model.state_dict(), **ewc.state_dict()})
    assert states[0]["budget.multiplier"] != 1.0
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_without_a_budget_nothing_goes_into_a_checkpoint(tmp_path):
    _, ewc, _ = studied(tmp_path, rank1=True, decay=0.5)
    assert ewc.state_dict() == {}


@pytest.mark.parametrize("rank1", [False, True])
def test_two_stages(tmp_path, rank1):
    """F <- decay F_old + F_new, held at the start of the stage (online EWC)."""
    first, model = tmp_path / "first", ToyLM().eval()
    model, ewc, features = studied(tmp_path, decay=0.5, rank1=rank1, model=model)
    trained = {id(p) for p in model.parameters()}
    ewc.ready(model, trained)
    shake(model, trained)
    ewc.save(model, first)
    names = [n for n, _ in model.named_parameters()]
    old, both = read(ewc._path, names), read(first / "ewc" / "fisher.safetensors", names)
    new = ewc._estimate(model, features)  # at the weights as they are now, on what was learnt
    for name in names:
        for end, tensor in both[name].tensors().items():
            torch.testing.assert_close(tensor, 0.5 * old[name].tensors()[end] + new[name].tensors()[end])

    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    model, second, _ = studied(tmp_path, decay=0.5, rank1=rank1, model=model, previous=str(first))
    second.ready(model, trained)
    assert second.penalty(BATCH, {}).item() == 0, "held where the second stage starts"
    shake(model, trained, 0.05)
    wanted = sum((both[n].chunk(0, len(p)).reshape(p.shape) * (p - start[n]).square()).sum() * 3 / 2 for n, p in model.named_parameters())
    torch.testing.assert_close(second.penalty(BATCH, {}), wanted.detach())
    second.save(model, tmp_path / "second")
    assert (tmp_path / "second" / "ewc" / "fisher.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"strategy\.ewc\.previous=.*decay"):
        studied(tmp_path, decay=0.5, previous=str(tmp_path))


def test_a_stage_under_lora_leaves_the_information_of_the_merged_weights(tmp_path):
    model, ewc, features = studied(tmp_path, decay=0.0)
    trained = lora(model)
    ewc.ready(model, trained)
    shake(model, trained)
    ewc.save(model, tmp_path)
    plain = ToyLM().eval()
    plain.load_state_dict(merged(model))
    left = read(tmp_path / "ewc" / "fisher.safetensors", [n for n, _ in plain.named_parameters()])
    for name, information in ewc._estimate(plain, features).items():
        torch.testing.assert_close(left[name].tensors()[""], information.tensors()[""], rtol=1e-3, atol=1e-6)
