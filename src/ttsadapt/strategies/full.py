"""Full fine-tuning: every weight of the pretrained model trains."""

from collections.abc import Iterable, Mapping

from torch import nn

from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.parameters import matching
from ttsadapt.strategies.base import Strategy


class Full(Strategy):
    """All parameters, or those of some components (`components: [decoder]`), embeddings and heads included."""

    def __init__(
        self,
        components: list[str] | None = None,
        frozen: list[str] | None = None,
        lrs: Mapping[str, float] | None = None,
        lr: float | None = None,
    ) -> None:
        """`frozen` components stay as they are, whatever else holds their parameters; `lrs` gives components rates of their own."""
        super().__init__()
        self.components, self.frozen, self.lrs, self.lr = components, list(frozen or ()), dict(lrs or {}), lr
        self._rates: dict[int, float] = {}

    @property
    def trains_all(self) -> bool:
        return self.components is None and not self.frozen

    def trainable(self, backbone: Backbone) -> Iterable[nn.Parameter]:
        """ConfigError for a component that the backbone does not have, or that has a rate and does not train."""
        for key, names in {"components": self.components or (), "frozen": self.frozen, "lrs": self.lrs}.items():
            if unknown := [name for name in names if name not in backbone.components]:
                known = ", ".join(sorted(backbone.components)) or "none"
                raise ConfigError(f"strategy.full.{key}={unknown}: the components of {type(backbone).__name__} are {known}")
        stays = {id(p) for name in self.frozen for p in _of(backbone, name)}
        globs = ["*"] if self.components is None else [glob for name in self.components for glob in backbone.components[name]]
        chosen = [p for p in matching(backbone, globs) if id(p) not in stays]
        self._rates = self._own(backbone, {id(p) for p in chosen})
        return chosen

    def rate(self, parameter: nn.Parameter) -> float | None:
        return self._rates.get(id(parameter), self.lr)

    def _own(self, backbone: Backbone, chosen: set[int]) -> dict[int, float]:
        """Rates of the parameters whose component has one."""
        rates: dict[int, float] = {}
        for name, lr in self.lrs.items():
            mine = [id(p) for p in _of(backbone, name) if id(p) in chosen]
            if not mine:
                raise ConfigError(f"strategy.full.lrs.{name}: this component does not train: leave its rate out, or train it")
            if any(rates.get(p, lr) != lr for p in mine):
                raise ConfigError(f"strategy.full.lrs.{name}: shares parameters with a component of another rate: give both the same")
            rates |= dict.fromkeys(mine, lr)
        return rates


def _of(backbone: Backbone, component: str) -> Iterable[nn.Parameter]:
    return matching(backbone, backbone.components[component])
