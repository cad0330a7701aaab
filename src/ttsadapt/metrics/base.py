"""A metric scores one utterance at a time and is summed up over a set, on any number of processes."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from ttsadapt.data.utterance import Utterance

if TYPE_CHECKING:
    from ttsadapt.artifacts import Artifact


class UtteranceMetric(Metric, ABC):
    """Keeps one value an utterance ("cat" state, DDP-safe). Never sees a model: audio in, number out."""

    name: ClassVar[str]
    """column in every table, such as "per" """
    unit: ClassVar[str]
    better: ClassVar[str]
    """"lower", "higher" or "near reference" """
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")

    @property
    @abstractmethod
    def model(self) -> str:
        """What computed it, such as "ctc-phones" or "pyworld harvest"."""

    @property
    @abstractmethod
    def version(self) -> str: ...

    def needs(self, corpus: Path, cache: Path) -> "tuple[Artifact, ...]":
        """Judges (recogniser, encoders) that must exist; built through `artifacts.ensure` and opened in `open`."""
        return ()

    def open(self, corpus: Path, cache: Path) -> None:
        """Load what `needs` built."""

    @abstractmethod
    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        """Value for synthesised `audio` (samples,) of the utterance's text; NaN when it is not defined there."""

    def update(self, audio: Tensor, rate: int, utterance: Utterance) -> None:
        self.values.append(torch.tensor([self.score(audio, rate, utterance)], dtype=torch.float64))

    def compute(self) -> Tensor:
        values = torch.cat(list(self.values)) if isinstance(self.values, list) else self.values
        return values.nanmean()
