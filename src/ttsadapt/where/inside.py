"""What lies inside chosen blocks: the weights that can train, the layers that an adapter can take the place of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ttsadapt.adapters import match
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.parameters import bare_parameters
from ttsadapt.where.base import Block, Where, modules, place, spelt

if TYPE_CHECKING:
    from ttsadapt.strategies.base import Study


def parameters(backbone: Backbone, blocks: Sequence[Block]) -> list[nn.Parameter]:
    """Every weight of the blocks (attention, feed-forward, norms), but not those of adapters inside them."""
    return [p for module in modules(backbone, blocks) for p in bare_parameters(module)]


def places(backbone: Backbone, blocks: Sequence[Block]) -> tuple[str, ...]:
    """What names of modules inside the blocks begin with, once a dot is put behind them."""
    return tuple(f"{place(backbone, block)}." for block in blocks)


def chosen(where: Where | None, study: "Study") -> tuple[str, ...] | None:
    """`places` of what `where` chooses; None when there is none, and everything is meant."""
    if where is None:
        return None
    where.study(study)
    return places(study.backbone, where.blocks(study.backbone))


def layers(backbone: Backbone, blocks: Sequence[Block] | None, globs: Sequence[str] | None = None) -> list[str]:
    """Names of the layers that the backbone calls adaptable: all, or those inside the blocks; of these, those that match any glob.

    To be asked on the untouched model, in `study`. ConfigError when none is left.
    """
    found = match(backbone, backbone.adaptable)
    if blocks is not None:
        inside = places(backbone, blocks)
        found = [name for name in found if f"{name}.".startswith(inside)]
    if globs is not None:
        chosen = set(match(backbone, globs))
        found = [name for name in found if name in chosen]
    if not found:
        there = f" inside {', '.join(map(spelt, blocks))}" if blocks is not None else ""
        asked = f" matches {list(globs)}" if globs is not None else " lies there"
        raise ConfigError(f"none of the adaptable layers {list(backbone.adaptable)}{there}{asked}: choose other blocks or layers")
    return found
