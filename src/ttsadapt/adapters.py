"""Where adapters go, and the one way to read a weight: by the name it had before an adapter took its layer's place.

peft puts the layer `x` inside an adapter: `x.weight` becomes `x.base_layer.weight`, beside `x.lora_A...`. Everything here
speaks of `x.weight`, whether the layer is bare or adapted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ttsadapt.errors import ConfigError

Adapter = Any
"""A module that is a peft `LoraLayer`: a mixin, whose type knows neither modules nor `get_delta_weight`."""


class Switchable:
    """A module that changes what a model does, and can be switched off: then the model acts as if it had never been put there.

    What it adds trains; a layer of the model that it took the place of stands inside of it under the name `base_layer`.
    """

    off: bool = False


def added_parameters(backbone: nn.Module) -> set[int]:
    """id() of every parameter that an adapter brought along, peft's or a `Switchable` module's."""
    added: set[int] = set()
    for module in backbone.modules():
        if isinstance(module, Switchable | BaseTunerLayer):
            assert isinstance(module, nn.Module)
            added |= {id(p) for n, p in module.named_parameters() if not n.startswith("base_layer.")}
    return added


def match(backbone: nn.Module, globs: Sequence[str]) -> list[str]:
    """Names of the adaptable layers that match any glob, in the model's order; ConfigError when none does.

    To be asked on the untouched model. Adaptable are linear layers and 1-d convolutions, except where an adapter could not be
    merged: a weight that is another layer's too (a tied embedding), and convolutions that are grouped, dilated or padded with
    anything but zeros, which peft's adapters are not.
    """
    uses = Counter(id(p) for m in backbone.modules() for p in m.parameters(recurse=False))
    layers = {n: m for n, m in backbone.named_modules() if _mergeable(m) and uses[id(m.get_parameter("weight"))] == 1}
    names = [n for n in layers if any(fnmatchcase(n, glob) for glob in globs)]
    if not names:
        raise ConfigError(
            f"{list(globs)} matches none of the {len(layers)} adaptable layers of {type(backbone).__name__}: "
            f"they are called {_some(layers)}"
        )
    return names


def _mergeable(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv1d):
        return module.groups == 1 and module.dilation == (1,) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def base_parameters(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is not an adapter's, by its original name; a tied one once, under its first name."""
    adapted = _adapted(backbone)
    named = ((_original(n, adapted), p) for n, p in backbone.named_parameters())
    return {n: p for n, p in named if n is not None}


def effective_weights(backbone: nn.Module, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """The weights that the forward pass acts with, by original name; differentiable in bare weights and adapters."""
    adapted = _adapted(backbone)
    weights: dict[str, Tensor] = {}
    for name, parameter in base_parameters(backbone).items():
        if names is None or name in names:
            layer, _, kind = name.rpartition(".")
            weights[name] = parameter + delta(adapted[layer], kind, parameter) if layer in adapted else parameter
    return weights


def delta(layer: Adapter, kind: str, base: Tensor) -> Tensor:
    """What the active adapters add to `base`, the "weight" or "bias" (`kind`) of the layer inside; the same shape."""
    total = torch.zeros_like(base)
    active = [] if layer.disable_adapters else [a for a in layer.active_adapters if a in layer.scaling]
    for adapter in active:
        if adapter in layer.merged_adapters:
            continue
        if kind == "weight":
            total = total + layer.get_delta_weight(adapter)
            if adapter in layer.lora_variant:
                total = total + _dora(layer, adapter, base + total)
        elif layer.lora_bias[adapter]:
            total = total + layer.lora_B[adapter].bias * layer.scaling[adapter]
    return total


def changed_names(backbone: nn.Module, trained: set[int]) -> list[str]:
    """Original names of the weights that training can change, bare or through an adapter; `trained` holds id()s."""
    adapted = _adapted(backbone)
    moved = {
        f"{name}.{kind}"
        for name, layer in adapted.items()
        for kind, parameters in adapter_parameters(layer).items()
        if any(id(p) in trained for p in parameters)
    }
    return [n for n, p in base_parameters(backbone).items() if id(p) in trained or n in moved]


def adapter_parameters(layer: Adapter) -> dict[str, list[nn.Parameter]]:
    """What an adapter adds, by the parameter of the layer inside that it changes: {"weight": [A, B], "bias": []}."""
    added: dict[str, list[nn.Parameter]] = {"weight": [], "bias": []}
    for name, parameter in layer.named_parameters():
        if not name.startswith("base_layer."):
            added["bias" if name.startswith("lora_B.") and name.endswith(".bias") else "weight"].append(parameter)
    return added


def adapter_of(backbone: nn.Module, name: str) -> Adapter | None:
    """The adapter around the layer that the parameter `name` (original) belongs to."""
    layer = attrgetter(name.rpartition(".")[0])(backbone) if "." in name else None
    return layer if isinstance(layer, LoraLayer) else None


@torch.no_grad()
def merged(backbone: nn.Module) -> dict[str, Tensor]:
    """The state dict of the untouched architecture (original names, buffers included) with the adapters merged in."""
    adapted = _adapted(backbone)
    weights = effective_weights(backbone)
    state: dict[str, Tensor] = {}
    for name, tensor in backbone.state_dict().items():
        original = _original(name, adapted)
        if original is not None:
            state[original] = weights.get(original, tensor).detach().to(tensor.dtype)
    return state


def _adapted(backbone: nn.Module) -> dict[str, Adapter]:
    """Adapters by the name of the layer whose place they took."""
    adapters = {n: m for n, m in backbone.named_modules() if isinstance(m, BaseTunerLayer)}
    for name, adapter in adapters.items():
        if not isinstance(adapter, LoraLayer):
            raise ConfigError(f"{name} is under a {type(adapter).__name__}, whose weight cannot be read: use LoRA or DoRA there")
    return adapters


def _original(name: str, adapted: Iterable[str]) -> str | None:
    """Name of a parameter before adapters took their places; None for what an adapter added."""
    for layer in _prefixes(name):
        if layer in adapted:
            inside = name[len(layer) + 1 :]
            return f"{layer}.{inside.removeprefix('base_layer.')}" if inside.startswith("base_layer.") else None
    return name


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _dora(layer: Adapter, adapter: str, direction: Tensor) -> Tensor:
    """From V to m V / |V|: rows of learnt length m, whose norm |V| counts as a constant (DoRA, section 4.3)."""
    norm = direction.detach().flatten(1).norm(dim=1)
    stretch = layer.lora_magnitude_vector[adapter].weight.flatten() / norm - 1
    return direction * stretch.view(-1, *[1] * (direction.dim() - 1))


def _some(names: Iterable[str], n: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (f" ... ({len(names)})" if len(names) > n else "")
