"""Full fine-tuning: every weight of the pretrained model trains."""

from collections.abc import Iterable

from torch import nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.parameters import matching
from ttsadapt.strategies.base import Strategy


class Full(Strategy):
    """All parameters, or those of some components (`components: [decoder]`), embeddings and heads included."""

    def __init__(self, components: list[str] | None = None, lr: float | None = None) -> None:
        super().__init__()
        self.components, self.lr = components, lr

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        if self.components is None:
            return matching(backbone, ("*",))
        unknown = [name for name in self.components if name not in backbone.components]
        if unknown:
            raise ConfigError(
                f"strategy.full.components={unknown}: {type(backbone).__name__} has the components {sorted(backbone.components)}"
            )
        return matching(backbone, [glob for name in self.components for glob in backbone.components[name]])
