"""Strategies that contradict each other: one trains the very weights that another keeps and puts adapters on."""

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import TYPE_CHECKING

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ttsadapt.adapters import Adapter
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.where.base import place, spelt

if TYPE_CHECKING:
    from ttsadapt.strategies.base import Strategy

SHOWN = 4


def refuse_clashes(backbone: Backbone, claimed: Mapping[str, Iterable[nn.Parameter]]) -> None:
    """ConfigError naming the blocks where one strategy claims a base weight and another the adapter on it. After every attach."""
    owners: dict[int, str] = {}
    for strategy, parameters in claimed.items():
        owners |= {id(p): strategy for p in parameters}
    clashes: dict[tuple[str, str], list[str]] = {}
    for name, module in backbone.named_modules():
        if isinstance(module, BaseTunerLayer):
            layer: Adapter = module
            base = {id(p) for p in layer.get_base_layer().parameters()}
            whole = {owners[i] for i in base & owners.keys()}
            added = {owners[id(p)] for p in layer.parameters() if id(p) in owners and id(p) not in base}
            for pair in ((w, a) for w in whole for a in added if w != a):
                clashes.setdefault(pair, []).append(name)
    for (whole_one, adapter), layers in clashes.items():
        raise ConfigError(_said(whole_one, adapter, f" in {_places(backbone, layers)}"))


def refuse_certain_clashes(strategies: Mapping[str, "Strategy"]) -> None:
    """ConfigError for those that are known before there is a model: a model may take an hour to pretrain."""
    for whole_one, adapter in permutations(strategies, 2):
        if strategies[whole_one].trains_all and strategies[adapter].keeps_weights:
            raise ConfigError(_said(whole_one, adapter))


def _said(whole_one: str, adapter: str, where: str = "") -> str:
    return (
        f"strategy=[{whole_one},{adapter}] contradict each other{where}: {whole_one} trains the weights that {adapter} would leave alone: "
        f"leave one out, or give them different blocks (partial and {adapter}, each with its own where)"
    )


def _places(backbone: Backbone, layers: Iterable[str]) -> str:
    """The blocks that layers lie in, by group and name; a layer outside of all blocks by its own name."""
    known = {f"{place(backbone, (g, n))}.": spelt((g, n)) for g, blocks in backbone.blocks.items() for n in blocks}
    found = list(dict.fromkeys(next((block for at, block in known.items() if f"{name}.".startswith(at)), name) for name in layers))
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
