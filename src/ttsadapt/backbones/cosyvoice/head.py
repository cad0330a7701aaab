"""The language model's prediction: label smoothing, and rows that predict more positions than are counted."""

import math
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from ttsadapt.heads import Categorical


@dataclass(eq=False)
class Spoken(Categorical):
    """What is said next. With `smoothing`, the loss is a KL divergence: zero for a model that predicts the smoothed target.

    The true class then gets 1 - smoothing, each of the others an equal share of the rest.
    """

    smoothing: float = 0.0
    worth: Tensor | None = None
    """(N,) how much of a position each of them counts; None: one each. An utterance counts speech and end, whether or not
    text and speech alternate and some positions predict that text is to follow: that is drawn after positions are counted."""

    @property
    def count(self) -> int:
        return len(self.target) if self.worth is None else round(float(self.worth.sum()))

    def per_position(self) -> Tensor:
        return self._worth(self._smoothed() if self.smoothing else super().per_position())

    def log_likelihood_per_position(self) -> Tensor:
        return self._worth(-super().per_position())

    def divergence_per_position(self, teacher: Self, temperature: float = 1.0) -> Tensor:
        return self._worth(super().divergence_per_position(teacher, temperature))

    def kl_per_position(self, base: Self) -> Tensor:
        return self._worth(super().divergence_per_position(base))

    def select(self, keep: Tensor) -> Self:
        part = super().select(keep)
        if self.worth is not None:
            part.worth = self.worth[self._positions(keep)]
        return part

    def _worth(self, values: Tensor) -> Tensor:
        return values if self.worth is None else values * self.worth

    def _smoothed(self) -> Tensor:
        logs = self.logits.log_softmax(-1)
        true = logs.gather(1, self.target[:, None])[:, 0]
        sure, other = 1 - self.smoothing, self.smoothing / (logs.shape[1] - 1)
        entropy = sure * math.log(sure) + self.smoothing * math.log(other)
        return entropy - sure * true - other * (logs.sum(-1) - true)
