"""Where a strategy works: which blocks of the backbone. How it works there is the strategy's own business."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from torch import nn

from ttsadapt.analysis.layers import default_group
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError

if TYPE_CHECKING:
    from ttsadapt.strategies.base import Study

Positive = Annotated[int, "> 0"]
Block = tuple[str, str]
"""(group, name), as in `backbone.blocks[group][name]`"""


class Where(ABC):
    """A choice of blocks. A strategy that has one hands its `study` on, then asks for `blocks`, and lets it `save`."""

    def study(self, study: "Study") -> None:
        """Look at the untouched model, when the choice depends on it."""

    @abstractmethod
    def blocks(self, backbone: Backbone) -> list[Block]:
        """The chosen ones, each once. ConfigError for an unknown group or name, and for more blocks than there are."""

    def save(self, folder: Path) -> None:
        """Leave beside the run what the choice was made from."""


def names(backbone: Backbone, group: str | None) -> tuple[str, list[str]]:
    """A group, the backbone's default for None, and the names of its blocks from input to output."""
    group = group or default_group(backbone)
    if group not in backbone.blocks:
        raise ConfigError(f"where: group={group}: {type(backbone).__name__} has the groups {', '.join(backbone.blocks)}")
    return group, list(backbone.blocks[group])


def enough(n: int, group: str, available: Sequence[str], key: str = "n") -> int:
    """`n`, when the group has so many blocks."""
    if not 0 < n <= len(available):
        raise ConfigError(f"where: {key}={n}: the group {group} has {len(available)} blocks: give 1 to {len(available)}, or another group")
    return n


def place(backbone: Backbone, block: Block) -> str:
    """Dotted name of the block's module."""
    module = backbone.blocks[block[0]][block[1]]
    return next(name for name, other in backbone.named_modules() if other is module)


def spelt(block: Block) -> str:
    """As configs and messages call it: "decoder.3"."""
    return f"{block[0]}.{block[1]}"


def modules(backbone: Backbone, blocks: Sequence[Block]) -> list[nn.Module]:
    return [backbone.blocks[group][name] for group, name in blocks]
