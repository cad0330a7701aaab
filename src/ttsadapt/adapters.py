"""Where adapters go, and the one way to read a weight: by the name it had before an adapter took its layer's place.

peft puts the layer `x` inside an adapter: `x.weight` becomes `x.base_layer.weight`, beside `x.lora_A...`. Everything here
speaks of `x.weight`, whether the layer is bare or adapted.

A `Follower` changes what a module gives, not its weights: it belongs to its strategy and hangs on the module, so all names stay as
they were, and no weight is equivalent to it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import CheckpointError, ConfigError

Adapter = Any
"""A module that is a peft `LoraLayer`: a mixin, whose type knows neither modules nor `get_delta_weight`."""


class Switchable:
    """A module that changes what a model does, and can be switched off: then the model acts as if it had never been put there.

    What it adds trains; a layer of the model that it took the place of stands inside of it under the name `base_layer`.
    """

    off: bool = False


class Follower(Switchable, nn.Module):
    """An adapter that stands behind a module: (B, T, C) -> (B, T, C) at every position by itself, so caches of decoding stay true."""

    def after(self, x: Tensor, given: Tensor) -> Tensor:
        """(B, T, C) that the module made of `given`, its first argument -> the same shape."""
        raise TypeError(f"{type(self).__name__} follows nothing")

    def hang(self, module: nn.Module) -> None:
        """Stand behind `module`; a copy of the module takes a copy of its follower along."""
        module.register_forward_hook(self._follow)

    def _follow(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if self.off:
            return output
        if isinstance(output, tuple):
            return (self.after(output[0], arguments[0]), *output[1:])
        return self.after(output, arguments[0])


def followers(backbone: nn.Module) -> list[Follower]:
    """Those that stand before or behind any of its modules, in the model's order."""
    hooks = (hook for m in backbone.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values()))
    owners = (getattr(hook, "__self__", None) for hook in hooks)
    return [owner for owner in owners if isinstance(owner, Follower)]


def switchable(backbone: nn.Module) -> list[Switchable]:
    """All that are in the model or stand behind a module of it; peft's adapters have a switch of their own."""
    return [*(m for m in backbone.modules() if isinstance(m, Switchable)), *followers(backbone)]


def added_parameters(backbone: nn.Module) -> set[int]:
    """id() of every parameter that an adapter brought along, peft's or a `Switchable` module's."""
    added: set[int] = set()
    for module in backbone.modules():
        if isinstance(module, Switchable | BaseTunerLayer):
            assert isinstance(module, nn.Module)
            added |= {id(p) for n, p in module.named_parameters() if not n.startswith("base_layer.")}
    return added


@dataclass(frozen=True)
class Spot:
    """Where one bottleneck goes."""

    group: str
    """of the backbone's slots"""
    name: str
    module: nn.Module
    width: int


def spots(
    backbone: Backbone, places: Sequence[str] | None, layers: Sequence[str] | None, inside: tuple[str, ...] | None, key: str
) -> dict[str, list[Spot]]:
    """By group: behind which modules bottlenecks go, in the model's order. ConfigError, which names `key`, when nowhere.

    `places`: groups of the backbone's slots; `layers`: globs over names of modules; `inside`: what these begin with, a dot put behind
    them. None of any: all.
    """
    slots = backbone.slots
    wrong = [place for place in places or () if place not in slots]
    if wrong or not slots:
        raise ConfigError(f"{key}.places={wrong}: {type(backbone).__name__} has {', '.join(slots) or 'no slots for bottlenecks'}")
    found: dict[str, list[Spot]] = {}
    for group, slot in slots.items():
        if places is None or group in places:
            names = [(n, m) for n, m in backbone.named_modules() if any(fnmatchcase(n, glob) for glob in slot.modules)]
            found[group] = [Spot(group, n, m, slot.width) for n, m in names if _asked(n, layers, inside)]
    if not any(found.values()):
        raise ConfigError(
            f"{key}: none of the modules that a bottleneck may follow ({_slots(backbone)}) is in {key}.where and matches "
            f"{key}.layers={list(layers or '*')}: choose others"
        )
    return {group: mine for group, mine in found.items() if mine}


def _asked(name: str, layers: Sequence[str] | None, inside: tuple[str, ...] | None) -> bool:
    asked = layers is None or any(fnmatchcase(name, glob) for glob in layers)
    return asked and (inside is None or f"{name}.".startswith(inside))


def _slots(backbone: Backbone) -> str:
    return "; ".join(f"{group}: {', '.join(slot.modules)}" for group, slot in backbone.slots.items())


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


def keeps_base(backbone: nn.Module) -> bool:
    """Is the model with every adapter off the one it was before? Not where an initialisation moved a part of the weights into them."""
    configs = [c for m in backbone.modules() for c in getattr(m, "peft_config", {}).values()]
    return not any(str(c.init_lora_weights).startswith(("pissa", "olora")) for c in configs if hasattr(c, "init_lora_weights"))


@torch.no_grad()
def merged(backbone: nn.Module) -> dict[str, Tensor]:
    """The state dict of the untouched architecture (original names, buffers included) with the adapters merged in.

    CheckpointError when an adapter stands before or behind a module: no weight of that architecture does what it does.
    """
    standing = followers(backbone)
    if standing:
        raise CheckpointError(
            f"{len(standing)} adapters ({type(standing[0]).__name__}) have no merged weights, so this model has no released format: "
            "train lora, csp, partial or full to export"
        )
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
