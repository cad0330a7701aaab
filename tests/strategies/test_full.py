from typing import ClassVar

import pytest
import torch
from torch import nn

from ttsadapt.errors import ConfigError
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.full import Full


class Parts(nn.Module):
    """Something with components; `head` is tied to the embedding."""

    components: ClassVar = {
        "embeddings": ("embedding.*",),
        "decoder": ("decoder.*",),
        "upper": ("decoder.1.*",),
        "output": ("head.*", "bias"),
    }

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.decoder = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight
        self.bias = nn.Parameter(torch.zeros(4))


def rates(strategy, backbone=None):
    """{name: learning rate} of what trains."""
    backbone = backbone or Parts()
    names = {id(p): n for n, p in backbone.named_parameters()}
    return {names[id(p)]: lr for p, lr in adapt(backbone, {"full": strategy}, lambda name: None)}


def test_components_have_rates_of_their_own():
    found = rates(Full(lrs={"decoder": 1e-4, "embeddings": 0.5}, lr=0.1))
    assert found == {f"decoder.{i}.{kind}": 1e-4 for i in range(2) for kind in ("weight", "bias")} | {"embedding.weight": 0.5, "bias": 0.1}


def test_the_optimiser_gets_them_as_groups():
    backbone = Parts()
    strategies = {"full": Full(lrs={"decoder": 1e-4})}
    claims = adapt(backbone, strategies, lambda name: None)
    learner = Learner(backbone, strategies, claims, lambda groups: torch.optim.SGD(groups, lr=0.25))
    groups = learner.configure_optimizers().param_groups
    assert sorted((g["lr"], len(g["params"])) for g in groups) == [(1e-4, 4), (0.25, 2)]


def test_a_frozen_component_stays_even_where_it_is_tied():
    assert sorted(rates(Full(frozen=["embeddings", "upper"]))) == ["bias", "decoder.0.bias", "decoder.0.weight"]
    assert sorted(rates(Full(components=["decoder"], frozen=["upper"]))) == ["decoder.0.bias", "decoder.0.weight"]


@pytest.mark.parametrize("key", ["components", "frozen", "lrs"])
def test_an_unknown_component_is_named_with_the_known_ones(key):
    value = {"decodr": 1.0} if key == "lrs" else ["decodr"]
    with pytest.raises(ConfigError, match=rf"strategy\.full\.{key}=\['decodr'\]: the components of Parts are decoder, embeddings"):
        rates(Full(**{key: value}))


def test_rates_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"lrs\.decoder: this component does not train"):
        rates(Full(frozen=["decoder"], lrs={"decoder": 1e-3}))
    with pytest.raises(ConfigError, match=r"lrs\.upper: shares parameters with a component of another rate"):
        rates(Full(lrs={"decoder": 1e-3, "upper": 1e-4}))
    assert rates(Full(lrs={"decoder": 1e-3, "upper": 1e-3}))["decoder.1.bias"] == 1e-3
