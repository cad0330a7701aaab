"""A weight that is held where it was when training began."""

from torch import Tensor, nn

from ttsadapt.adapters import Adapter, delta
from ttsadapt.analysis.information import Information


class Held(nn.Module):
    """A weight that can change: in place, through an adapter, or both. What it keeps moves with the strategy, and is not saved."""

    start: Tensor | None
    """a copy of `now()` before training; None where that is 0, as an adapter's (but for PiSSA's and the like)"""

    def __init__(self, base: nn.Parameter, kind: str, adapter: Adapter | None, trains: bool, information: Information) -> None:
        """`kind`: "weight" or "bias" where there is an adapter; `trains`: whether `base` itself does."""
        super().__init__()
        self.kind, self.trains = kind, trains
        self._model = (base, adapter)  # a tuple: the weight stays the model's
        self._kept = type(information)
        for end, tensor in information.tensors().items():
            self.register_buffer(f"fisher{end}", tensor.to(base.device), persistent=False)
        start = self.now()
        rounding = 1e-6 * base.abs().max()
        held = start.detach().clone() if trains or start.abs().max() > rounding else None
        self.register_buffer("start", held, persistent=False)
        self._active = None if held is not None else _plain(adapter, kind)

    @property
    def information(self) -> Information:
        return self._kept.from_tensors({n.removeprefix("fisher"): t for n, t in self._buffers.items() if n != "start" and t is not None})

    def now(self) -> Tensor:
        """The part of the weight in effect that training moves: all of it, or what the adapter adds."""
        base, adapter = self._model
        if adapter is None:
            return base
        added = delta(adapter, self.kind, base)
        return base.float() + added.float() if self.trains else added

    @property
    def factors(self) -> tuple[float, Tensor, Tensor] | None:
        """scaling, A (rank, rest) and B (out, rank) where the change is their product."""
        _, layer = self._model
        if layer is None or self._active is None:
            return None
        down, up = layer.lora_A[self._active].weight, layer.lora_B[self._active].weight
        return layer.scaling[self._active], down.flatten(1), up.flatten(1)


def _plain(layer: Adapter | None, kind: str) -> str | None:
    """Name of the adapter, if there is one whose change is scaling * B A: no DoRA, no B with a kernel, no transposed weight."""
    if layer is None or kind != "weight":
        return None
    active = [a for a in layer.active_adapters if a in layer.scaling and a not in layer.merged_adapters]
    if len(active) != 1 or active[0] in layer.lora_variant or getattr(layer, "fan_in_fan_out", False):
        return None
    parts = [part[active[0]] for part in (layer.lora_A, layer.lora_B) if active[0] in part]
    plain = len(parts) == 2 and all(isinstance(part, nn.Linear | nn.Conv1d) for part in parts) and parts[1].weight[0, 0].numel() == 1
    return active[0] if plain else None
