"""Elastic weight consolidation (Kirkpatrick et al. 2017): hold each weight as hard as the old abilities need it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ttsadapt.adapters import Adapter, adapter_of, base_parameters, changed_names, delta
from ttsadapt.analysis.fisher import drawn, fisher, read, store
from ttsadapt.backbones.base import Backbone, Batch
from ttsadapt.errors import ConfigError
from ttsadapt.files import digest
from ttsadapt.heads import Heads
from ttsadapt.strategies.base import Strategy, Study


class EWC(Strategy):
    """Adds strength / 2 * sum_i F_i (theta_i - start_i)^2, about `strength` times the nats per position lost on source data.

    theta is the weight in effect: under LoRA the change is the merged one, scaling * B A. (Fisher information of A and B
    themselves would be useless: B starts at 0, so A's is 0.) In a Laplace reading `strength` is N_old / N_new, the
    positions that the old abilities stand for over those of the new data.
    """

    def __init__(self, strength: float = 1.0, utterances: int = 400, frames: int = 1000, seed: int = 0) -> None:
        """`utterances` of the source data in batches of `frames`: more batches, a less noisy estimate. `seed` is the estimate's."""
        super().__init__()
        if strength < 0:
            raise ConfigError(f"strategy.ewc.strength={strength}: give a number that is not negative")
        self.strength, self.utterances, self.frames, self.seed = strength, utterances, frames, seed
        self._held: list[Held] = []

    def study(self, study: Study) -> None:
        settings = {"utterances": self.utterances, "frames": self.frames, "seed": self.seed}
        self._path = study.cache / f"fisher-{digest(settings)}.safetensors"
        store(self._path, lambda: self._estimate(study))

    def _estimate(self, study: Study) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        part = drawn(study.source, self.utterances, generator)
        return fisher(study.backbone, part.batches(self.frames, generator), generator)

    @torch.no_grad()
    def ready(self, backbone: Backbone, trained: set[int]) -> None:
        """Keep the information of the weights that can change; a copy of the start only of those that change in place."""
        changed = changed_names(backbone, trained)
        information = {n: f for n, f in read(self._path, changed).items() if f.any()}
        if not information:
            raise ConfigError(
                f"strategy.ewc: no Fisher information is known of any of the {len(changed)} weights that train "
                f"({', '.join(changed[:3]) or 'new modules only'}): use kd, which needs no weights, or train weights of the base model"
            )
        own = base_parameters(backbone)
        self._held = []
        for i, (name, value) in enumerate(information.items()):
            weight = Held(own[name], name.rpartition(".")[2], adapter_of(backbone, name), id(own[name]) in trained)
            self._held.append(weight)
            self.register_buffer(f"fisher{i}", value.to(weight.base.device), persistent=False)
            self.register_buffer(f"start{i}", weight.start(), persistent=False)

    def penalty(self, batch: Batch, heads: Heads) -> Tensor:
        """() strength times nats per position, in the heads' mean as `analysis.fisher` states it."""
        with torch.autocast(batch["origin"].device.type, enabled=False):
            changes = self._changes()
            weighted = torch._foreach_mul(changes, [self.get_buffer(f"fisher{i}") for i in range(len(changes))])
            nats = torch.stack([torch.dot(w.flatten(), c.flatten()) for w, c in zip(weighted, changes)]).sum() / 2
            return self.strength * nats

    def _changes(self) -> list[Tensor]:
        """theta - start of every held weight, differentiable."""
        now = [weight.now() for weight in self._held]
        moved = [i for i in range(len(now)) if getattr(self, f"start{i}") is not None]
        if moved:
            differences = torch._foreach_sub([now[i] for i in moved], [getattr(self, f"start{i}") for i in moved])
            for i, difference in zip(moved, differences):
                now[i] = difference
        return now


@dataclass(eq=False)
class Held:
    """A weight that can change: in place, through an adapter, or both."""

    base: nn.Parameter
    kind: str
    """ "weight" or "bias" where there is an adapter"""
    adapter: Adapter | None
    trains: bool
    """whether `base` itself trains"""

    def now(self) -> Tensor:
        """The part of the weight in effect that training moves: all of it, or what the adapter adds."""
        if self.adapter is None:
            return self.base.float()
        added = delta(self.adapter, self.kind, self.base).float()
        return self.base.float() + added if self.trains else added

    def start(self) -> Tensor | None:
        """A copy of `now()` before training; None where that is 0, as an adapter's (but for PiSSA's and the like)."""
        start = self.now()
        rounding = 1e-6 * self.base.abs().max()
        return start.clone() if self.trains or start.abs().max() > rounding else None
