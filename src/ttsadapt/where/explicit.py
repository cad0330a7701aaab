"""Blocks by name."""

from collections.abc import Sequence

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.where.base import Block, Where, spelt


class Explicit(Where):
    """Names such as "decoder.3", of any groups."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(dict.fromkeys(names))
        if not self.names:
            raise ConfigError("where: names=[]: give at least one block, such as [decoder.0]")

    def blocks(self, backbone: Backbone) -> list[Block]:
        known = {spelt((group, name)): (group, name) for group, blocks in backbone.blocks.items() for name in blocks}
        wrong = [name for name in self.names if name not in known]
        if wrong:
            raise ConfigError(f"where: names={wrong}: {type(backbone).__name__} has the blocks {', '.join(known)}")
        return [known[name] for name in self.names]
