"""Learning-rate schedules: factors of the optimiser's learning rate, by optimiser step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, max_steps: int, warmup: float = 0.08, floor: float = 0.05) -> LambdaLR:
    """Linear from 0 over the first `warmup` share of the steps, then half a cosine down to `floor`, which holds from there on."""
    rise = round(warmup * max_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / max(1, max_steps - rise))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, max_steps: int, warmup: float = 0.0) -> LambdaLR:
    """Linear from 0 over the first `warmup` share of the steps, then 1."""
    rise = round(warmup * max_steps)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (rise + 1)))
