"""The first or the last blocks of a group."""

from ttsadapt.backbones.base import Backbone
from ttsadapt.where.base import Block, Positive, Where, enough, names


class First(Where):
    """Next to the input. `group` None: the backbone's default."""

    def __init__(self, n: Positive = 2, group: str | None = None) -> None:
        self.n, self.group = n, group

    def blocks(self, backbone: Backbone) -> list[Block]:
        group, available = names(backbone, self.group)
        return [(group, name) for name in available[: enough(self.n, group, available)]]


class Last(First):
    """Next to the output."""

    def blocks(self, backbone: Backbone) -> list[Block]:
        group, available = names(backbone, self.group)
        return [(group, name) for name in available[-enough(self.n, group, available) :]]
