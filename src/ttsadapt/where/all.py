"""Every block."""

from ttsadapt.backbones.base import Backbone
from ttsadapt.where.base import Block, Where, names


class All(Where):
    """Of every group, or of one. Embeddings, output heads and whatever else is no block stay out."""

    def __init__(self, group: str | None = None) -> None:
        self.group = group

    def blocks(self, backbone: Backbone) -> list[Block]:
        groups = list(backbone.blocks) if self.group is None else [self.group]
        return [(group, name) for group in groups for name in names(backbone, group)[1]]
