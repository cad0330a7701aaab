"""How strong a penalty must be for the model to drift no further than stated: dual ascent on the measured divergence.

The penalty's own estimate of the drift is of no use here: a diagonal is blind to many directions, an optimiser finds them, and
the measured KL ends up many times the estimate.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ttsadapt.analysis.fisher import resting
from ttsadapt.backbones.base import Backbone, Batch, to_device
from ttsadapt.heads import Categorical, Head, Heads

Teach = Callable[[int, Batch], Heads]
"""number of a watched batch and the batch on the device -> the untuned model's predictions"""


class Budget(nn.Module):
    """The multiplier of a constraint KL(base || tuned) <= limit, in nats per position of some fixed batches.

    Every `every` batches of training the KL is measured, and log multiplier += rate * log(KL / limit), the step of the logarithm
    held to `rate` either way: ascent on the dual in the logarithm (exponentiated gradient, Kivinen & Warmuth 1997), since nobody
    knows the multiplier's size beforehand. All of it is in the checkpoint, so a resumed run goes on bit for bit.
    """

    multiplier: Tensor
    kl: Tensor

    def __init__(self, limit: float, start: float, every: int, rate: float) -> None:
        super().__init__()
        self.limit, self.every, self.rate = limit, every, rate
        self.register_buffer("multiplier", torch.tensor(float(start)))
        self.register_buffer("kl", torch.zeros(()))
        self._seen = 0

    def get_extra_state(self) -> Tensor:
        """Batches seen: on the CPU, so that asking whether it is time does not wait for a GPU."""
        return torch.tensor(self._seen)

    def set_extra_state(self, state: Tensor) -> None:
        self._seen = int(state)

    def step(self, measure: Callable[[], Tensor]) -> Tensor:
        """() the multiplier for this batch; `measure` gives the KL when it is time."""
        if self._seen and self._seen % self.every == 0:
            self.kl.copy_(measure())
            move = self.rate * (self.kl / self.limit).clamp_min(1e-9).log().clamp(-1.0, 1.0)
            self.multiplier.mul_(move.exp())
        self._seen += 1
        return self.multiplier.clone()  # the next step must not change what a backward pass still reads


@torch.no_grad()
def divergence(backbone: Backbone, batches: Sequence[Batch], teach: Teach) -> Tensor:
    """() KL(base || tuned) in nats per position, heads weighed as in the Fisher information. Modes are left as they were."""
    device = next(backbone.parameters()).device
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    weights: dict[str, float] = {}
    with resting(backbone), torch.autocast(device.type, enabled=False):
        for number, batch in enumerate(batches):
            batch = to_device(batch, device)
            theirs = teach(number, batch)
            for name, head in backbone(batch).items():
                kl = head.kl_per_position(theirs[name]).sum()
                sums[name], weights[name] = sums.get(name, torch.zeros_like(kl)) + kl, head.weight
                counts[name] = counts.get(name, 0) + head.count
    used = [n for n in sums if counts[n] and weights[n] > 0]
    return torch.stack([weights[n] * sums[n] / counts[n] for n in used]).sum() / sum(weights[n] for n in used)


@torch.no_grad()
def predictions(backbone: Backbone, batches: Sequence[Batch]) -> list[Heads]:
    """What the model as it is now predicts, independent of its later weights."""
    device = next(backbone.parameters()).device
    with resting(backbone), torch.autocast(device.type, enabled=False):
        return [_final(backbone(to_device(batch, device))) for batch in batches]


def _final(heads: Heads) -> Heads:
    """A lazy head would be projected by whatever the weights have become: its logits take the place of its hidden states."""
    return {n: replace(h, hidden=h.logits, project=_as_is) if isinstance(h, Categorical) else h for n, h in heads.items()}


def on_device(heads: Heads, device: torch.device) -> Heads:
    def moved(head: Head) -> Head:
        values = {f.name: getattr(head, f.name) for f in fields(head)}
        tensors: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(head, **tensors)

    return {n: moved(head) for n, head in heads.items()}


def _as_is(logits: Tensor) -> Tensor:
    return logits
