"""Metrics that ask an encoder."""

from abc import abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor

from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.judges.encoder import Encoder

J = TypeVar("J", bound=Encoder)


class JudgedMetric(UtteranceMetric, Generic[J]):
    """Opens its judge, and states the judge's version and own error."""

    def __init__(self, steps: int) -> None:
        """`steps`: how long the judge is trained; metrics that give the same number share one."""
        super().__init__()
        self.steps = steps
        self.judge: J | None = None

    @abstractmethod
    def needs(self, corpus: Path, cache: Path) -> tuple[J]: ...

    @property
    def model(self) -> str:
        return "ecapa-tdnn, trained on this corpus"

    @property
    def revision(self) -> str:
        return self.judge.version if self.judge else ""

    def own_errors(self) -> dict[str, dict[str, float]]:
        return {self.judge.name: self.judge.card["error"]} if self.judge else {}

    def open(self, corpus: Path, cache: Path) -> None:
        (self.judge,) = self.needs(corpus, cache)

    @property
    def opened(self) -> J:
        """The judge to ask."""
        assert self.judge is not None, "open comes first"
        return self.judge


def cosine(one: Tensor | None, other: Tensor | None) -> float:
    """Of two vectors of length 1, times 100; NaN when there is no speech to compare."""
    return SILENT if one is None or other is None else 100 * float(one @ other)
