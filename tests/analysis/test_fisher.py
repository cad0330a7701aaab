import pytest
import torch
from toys import VOCABULARY, ToyLM, ToyMel, dataset

from ttsadapt.adapters import base_parameters
from ttsadapt.analysis.fisher import fisher
from ttsadapt.analysis.information import Whole, read, store
from ttsadapt.errors import DataError, UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def squared_jacobian(outputs, parameters):
    """(K,) outputs -> for each parameter (K, ...) squared derivatives."""
    rows = torch.autograd.grad(outputs, parameters, torch.eye(len(outputs)), is_grads_batched=True, allow_unused=True, retain_graph=True)
    return [torch.zeros(len(outputs), *p.shape) if r is None else r.square() for r, p in zip(rows, parameters)]


def exact_categorical(model, batches, head="codebook0"):
    """E over every label of every position, enumerated: nats per position."""
    total, count = None, 0
    for batch in batches:
        logs = model(batch)[head].logits.log_softmax(-1)
        squares = squared_jacobian(logs.flatten(), list(model.parameters()))
        weight = logs.detach().exp().flatten()
        part = [torch.einsum("k,k...->...", weight, s) for s in squares]
        total = part if total is None else [a + b for a, b in zip(total, part)]
        count += len(logs)
    assert logs.shape[1] == VOCABULARY
    return [t / count for t in total]


def exact_continuous(model, batches, head, sigma):
    """Gaussian and Laplace densities of scale sigma both have 1 / sigma^2 a value."""
    total, count = None, 0
    for batch in batches:
        value = model(batch)[head].value
        part = [s.sum(0) / sigma**2 for s in squared_jacobian(value.flatten(), list(model.parameters()))]
        total = part if total is None else [a + b for a, b in zip(total, part)]
        count += len(value)
    return [t / count for t in total]


def compare(estimate, exact, names):
    a = torch.cat([estimate[n].flatten() for n in names])
    b = torch.cat([e.flatten() for e in exact])
    seen = b > 1e-7 * b.max()
    assert seen.float().mean() > 0.5
    assert torch.equal(a[~seen] < 1e-6 * b.max(), torch.ones_like(a[~seen], dtype=torch.bool))
    ratio = (a.sum() / b.sum()).item()
    correlation = torch.corrcoef(torch.stack([a[seen].log(), b[seen].log()]))[0, 1].item()
    return ratio, correlation


@pytest.mark.parametrize(
    ("model", "head", "sigma"),
    [(ToyLM(), "codebook0", None), (ToyMel(2, 0.7), "mel", 0.7), (ToyMel(1, 1.5), "mel", 1.5)],
    ids=["categorical", "gaussian", "laplace"],
)
def test_sampled_fisher_is_the_exact_one(tmp_path, model, head, sigma):
    model.eval()
    batches = list(dataset(tmp_path, 8).batches(70))
    estimate = fisher(model, batches * 60, generator())
    exact = exact_continuous(model, batches, head, sigma) if sigma else exact_categorical(model, batches, head)
    ratio, correlation = compare(estimate, exact, [n for n, _ in model.named_parameters()])
    assert abs(ratio - 1) < 0.05
    assert correlation > 0.95


def test_heads_are_weighed_as_in_the_task_loss(tmp_path):
    """Weights 4 and 1: (4 F_0 + F_1) / 5, not their squares."""
    model = ToyLM(weights=(4.0, 1.0)).eval()
    batches = list(dataset(tmp_path, 8).batches(70))
    first, second = exact_categorical(model, batches, "codebook0"), exact_categorical(model, batches, "codebook1")
    exact = [(4 * a + b) / 5 for a, b in zip(first, second)]
    ratio, correlation = compare(fisher(model, batches * 60, generator()), exact, [n for n, _ in model.named_parameters()])
    assert abs(ratio - 1) < 0.05
    assert correlation > 0.95


def test_heads_of_other_units_count_by_their_own_positions(tmp_path):
    """One duration an utterance beside many frames: each head's mean, as the task loss has it."""
    model = ToyMel(2, 0.7, duration_weight=2.0).eval()
    batches = list(dataset(tmp_path, 8).batches(70))
    mel, duration = exact_continuous(model, batches, "mel", 0.7), exact_continuous(model, batches, "duration", 1.0)
    exact = [(a + 2 * b) / 3 for a, b in zip(mel, duration)]
    ratio, correlation = compare(fisher(model, batches * 60, generator()), exact, [n for n, _ in model.named_parameters()])
    assert abs(ratio - 1) < 0.07
    assert correlation > 0.95


@pytest.mark.parametrize(("model", "head"), [(ToyLM(), "codebook0"), (ToyMel(2, 0.7), "mel"), (ToyMel(1, 1.5), "mel")])
def test_half_the_weighed_square_of_a_small_change_is_the_measured_kl(tmp_path, model, head):
    model.eval()
    batches = list(dataset(tmp_path, 8).batches(70))
    information = fisher(model, batches * 40, generator())
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    predicted = measured = 0.0
    with torch.no_grad():
        before = [model(batch)[head] for batch in batches]
        _ = [h.logits for h in before if hasattr(h, "logits")]  # they are lazy: project with the old weights
        for seed in range(20):
            g = generator(seed)
            for name, parameter in model.named_parameters():
                change = 3e-3 * torch.randn(parameter.shape, generator=g)
                parameter.copy_(start[name] + change)
                predicted += 0.5 * (information[name] * change.square()).sum().item()
            kl = [model(batch)[head].kl_per_position(base) for batch, base in zip(batches, before)]
            measured += torch.cat(kl).mean().item()
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name])
    assert measured > 0
    assert abs(predicted / measured - 1) < 0.1


def test_the_backbone_is_left_as_it_was_found(tmp_path):
    model = ToyLM().train()
    model.layers[0].eval()
    model.layers[1].linear.to(torch.bfloat16)
    model.embed.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    before = {n: (p.detach().clone(), p.requires_grad, p.dtype) for n, p in model.named_parameters()}
    with pytest.raises(UserError, match="codebook0 is not finite on u") as error:  # leaves in the middle: also then
        model.heads[0].bias.data[0] = float("nan")
        fisher(model, dataset(tmp_path).batches(80), generator())
    assert "\n" not in str(error.value)
    model.heads[0].bias.data.copy_(before["heads.0.bias"][0])
    information = fisher(model, dataset(tmp_path).batches(80), generator())
    assert [m.training for m in model.modules()] == modes
    for name, parameter in model.named_parameters():
        value, needed, dtype = before[name]
        assert torch.equal(parameter, value) and parameter.requires_grad == needed and parameter.dtype == dtype
        assert parameter.grad is None
        assert information[name].dtype == torch.float32
    assert information["embed.weight"].any(), "frozen weights have information too"


def test_dropout_rests_and_the_same_seed_gives_the_same_numbers(tmp_path):
    features, model = dataset(tmp_path), ToyLM()
    runs = [fisher(mode, features.batches(80), generator(s)) for mode, s in [(model.train(), 1), (model.eval(), 1), (model, 2)]]
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])
    assert not torch.equal(runs[0]["embed.weight"], runs[2]["embed.weight"])


def test_a_tied_weight_has_one_information_of_both_uses(tmp_path):
    model = ToyLM(tied=True)
    information = fisher(model, dataset(tmp_path).batches(80), generator())
    assert "embed.weight" in information and "heads.0.weight" not in information
    assert list(information) == list(base_parameters(model))


def test_without_positions_there_is_one_clear_line():
    with pytest.raises(DataError, match="no supervised position") as error:
        fisher(ToyLM(), [], generator())
    assert "\n" not in str(error.value)


def test_it_is_estimated_once_and_read_back_in_part(tmp_path):
    calls = []

    def estimate():
        calls.append(1)
        return {"a": Whole(torch.ones(2, 3).T), "b": Whole(torch.zeros(1))}

    path = tmp_path / "cache" / "fisher-x.safetensors"
    store(path, estimate)
    store(path, estimate)
    assert calls == [1]
    assert torch.equal(read(path, ["a", "new"])["a"].tensors()[""], torch.ones(3, 2))
    assert list(read(path, ["a", "new"])) == ["a"]
    path.write_bytes(b"not a tensor file")
    with pytest.raises(UserError, match="delete it"):
        read(path, ["a"])
