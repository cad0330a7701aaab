import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ttsadapt.adapters import base_parameters, changed_names, effective_weights, match, merged
from ttsadapt.errors import ConfigError


class Net(nn.Module):
    """A linear map, convolutions of several shapes, a norm with buffers, and a tied pair."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.body = nn.ModuleDict({"linear": nn.Linear(8, 6), "conv": nn.Conv1d(6, 4, 3, padding=1), "point": nn.Conv1d(4, 8, 1)})
        self.grouped = nn.Conv1d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm1d(8)
        self.out = nn.Linear(8, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        x = self.body["linear"](self.embed(ids)).transpose(1, 2)
        x = self.norm(self.grouped(self.body["point"](self.body["conv"](x))))
        return self.out(x.transpose(1, 2))


LAYERS = ["body.linear", "body.conv", "body.point"]


def adapted(seed=0, **options):
    torch.manual_seed(seed)
    net = Net().eval()
    base = copy.deepcopy(net)
    config = LoraConfig(r=4, lora_alpha=6.0, target_modules=options.pop("layers", LAYERS), **options)
    inject_adapter_in_model(config, net)
    return net, base


def shake(net):
    """As after training: B is no longer 0."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def explicitly_merged(net):
    """peft's own merge, layer by layer."""
    net = copy.deepcopy(net)
    for name, layer in [(n, m) for n, m in net.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        parent, _, leaf = name.rpartition(".")
        owner = net.get_submodule(parent)
        owner[leaf] = layer.base_layer if isinstance(owner, nn.ModuleDict) else setattr(owner, leaf, layer.base_layer)
    return net


def test_match_gives_linear_and_convolution_layers_in_order():
    assert match(Net(), ["body.*"]) == ["body.linear", "body.conv", "body.point"]
    assert match(Net(), ["*.point", "body.l*"]) == ["body.linear", "body.point"]
    assert match(Net(), ["*"]) == LAYERS, "not the grouped convolution, not the tied head"


@pytest.mark.parametrize(
    ("globs", "words"), [(["encoder.*"], "body.linear, body.conv"), (["norm"], "none of the 3"), (["out"], "layers of Net")]
)
def test_match_says_what_there_is_when_nothing_fits(globs, words):
    with pytest.raises(ConfigError, match=words) as error:
        match(Net(), globs)
    assert "\n" not in str(error.value) and globs[0] in str(error.value)


def test_names_are_those_before_the_adapters():
    net, base = adapted()
    own = base_parameters(net)
    assert list(own) == [n for n, _ in base.named_parameters()] and "out.weight" not in own
    assert all(torch.equal(own[n], p) for n, p in base.named_parameters())


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_bias": True}], ids=str)
def test_effective_weights_are_what_peft_merges(options):
    net = shake(adapted(**options)[0])
    wanted = explicitly_merged(net)
    weights = effective_weights(net)
    assert list(weights) == [n for n, _ in wanted.named_parameters()]
    for name, parameter in wanted.named_parameters():
        torch.testing.assert_close(weights[name], parameter, atol=1e-6, rtol=1e-5)
    assert not torch.equal(weights["body.conv.weight"], base_parameters(net)["body.conv.weight"])


def test_effective_weights_of_dora():
    net = shake(adapted(use_dora=True)[0])
    wanted = explicitly_merged(net)
    for name, weight in effective_weights(net).items():
        torch.testing.assert_close(weight, wanted.get_parameter(name), atol=1e-6, rtol=1e-5)


def test_the_merged_state_makes_the_same_predictions():
    net, base = adapted()
    shake(net).norm.running_mean.fill_(0.3)
    state = merged(net)
    assert state.keys() == base.state_dict().keys()
    base.load_state_dict(state)
    ids = torch.arange(7)[None]
    torch.testing.assert_close(base(ids), net(ids), atol=1e-5, rtol=1e-5)
    assert not any(t.requires_grad for t in state.values())


def test_gradients_flow_into_adapters_and_bare_weights():
    net = shake(adapted()[0]).requires_grad_(True)
    loss = sum(w.square().sum() for w in effective_weights(net, {"body.conv.weight", "embed.weight"}).values())
    loss.backward()
    layer = net.body["conv"]
    assert layer.lora_A["default"].weight.grad.any() and layer.lora_B["default"].weight.grad.any()
    assert net.embed.weight.grad.any() and net.body["linear"].base_layer.weight.grad is None


def test_switched_off_and_merged_adapters_add_nothing():
    net, base = adapted()
    shake(net)
    layer = net.body["linear"]
    before = effective_weights(net)["body.linear.weight"].detach().clone()
    layer.enable_adapters(False)
    assert torch.equal(effective_weights(net)["body.linear.weight"], base.body["linear"].weight)
    layer.enable_adapters(True)
    layer.merge()
    torch.testing.assert_close(effective_weights(net)["body.linear.weight"], before)


def test_what_training_can_change():
    net, _ = adapted(layers=["body.linear", "body.conv"])
    lora = {id(p) for n, p in net.named_parameters() if "body.conv" in n and "lora_" in n}
    assert changed_names(net, lora) == ["body.conv.weight"], "a frozen bias stays"
    assert changed_names(net, lora | {id(net.norm.bias), id(net.embed.weight)}) == ["embed.weight", "body.conv.weight", "norm.bias"]
    assert changed_names(net, set()) == changed_names(net, {id(nn.Parameter(torch.ones(1)))}) == []
    biased, _ = adapted(layers=["body.linear"], lora_bias=True)
    both = {id(p) for n, p in biased.named_parameters() if "lora_" in n}
    assert changed_names(biased, both) == ["body.linear.weight", "body.linear.bias"]
