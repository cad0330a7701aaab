"""A metric scores one utterance at a time and is summed up over a set, on any number of processes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor
from torchmetrics import Metric

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.configured import Configured

if TYPE_CHECKING:
    from ttsadapt.artifacts import Artifact


class Unknown(float):
    """NaN that says why: what a metric gives for a clip on which it is not defined."""

    why: str

    def __new__(cls, why: str) -> Self:
        self = super().__new__(cls, "nan")
        self.why = why
        return self


SILENT = Unknown("nothing is said")


class UtteranceMetric(Configured, Metric, ABC):
    """Keeps one value and one weight an utterance ("cat" states, DDP-safe). Never sees a model: audio in, number out."""

    name: ClassVar[str]
    """column in every table, such as "per" """
    unit: ClassVar[str]
    better: ClassVar[str]
    """"lower", "higher" or "near reference" """
    compares: bool = False
    """with the utterance's own recording"""
    reads: bool = False
    """the text, or its phones"""
    limit: int | None = None
    """score only this many utterances of a set, drawn once and for all (`metrics.subset`); None: all"""
    share: bool = False
    """each value is a share in %, such as of hits: of many clips its interval is Wilson's where they all agree"""
    looks: bool = False
    """at recordings of the data, without a judge that was trained on them"""
    spoken_only: bool = False
    """about how a model spoke: recordings have no such value"""
    usual: bool = True
    """not a paper's own formula, which is scored where it is asked for"""
    timed: bool = False
    """reads what a run of its own measured: each request alone, warmed up"""
    bounds: ClassVar[tuple[float, float]] = (-inf, inf)
    """between which every value lies, both included"""
    steady: ClassVar[Mapping[str, float]] = {}
    """how far a value may move, in its unit, under a "gain", "silence" at both ends, a "shift" by less than a frame. What is not named
    may move it freely"""
    full_state_update = False
    values: list[Tensor]
    weights: list[Tensor]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        better = getattr(cls, "better", None)
        cls.higher_is_better = {"higher": True, "lower": False}.get(better or "")  # what torchmetrics' MetricTracker reads

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("weights", default=[], dist_reduce_fx="cat")
        self.latest = nan
        """the last value, which says why when it is none"""

    @property
    @abstractmethod
    def model(self) -> str:
        """What computed it, such as "ctc-phones" or "pyworld harvest"."""

    @property
    def revision(self) -> str:
        """Of the model, or of the code; of a judge that is trained, once it is open."""
        return "1"

    @property
    def version(self) -> str:
        """The revision, and how it was set: values of two versions are never compared."""
        said = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.revision} ({said})".strip() if said else self.revision

    def identity(self, corpus: Path, cache: Path) -> list[Any]:
        """All that decides what value a clip gets, known before anything is opened: judges by the names of their folders."""
        judges = [need.folder.name for need in self.needs(corpus, cache)]
        return [self.model, self.settings, judges or self.revision]

    def own_errors(self) -> dict[str, dict[str, float]]:
        """{judge: {set: its own error on held-out recordings}}, once opened; empty where no judge is involved."""
        return {}

    def needs(self, corpus: Path, cache: Path) -> "tuple[Artifact, ...]":
        """Judges (recogniser, encoders) that must exist; built through `artifacts.ensure` and opened in `open`."""
        return ()

    def missing(self) -> str | None:
        """One line when a model or package that this needs is not on the machine: what, and where to put it. It is then left out."""
        return None

    def instead(self) -> str:
        """One line about what would judge without the corpus's recordings, where it is not on the machine; "" where there is nothing."""
        return ""

    def open(self, corpus: Path, cache: Path) -> None:
        """Load what `needs` built."""

    def beside(self, clip: Path) -> None:
        """Told of the clip's file before it is scored, for what is kept beside it."""

    @abstractmethod
    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        """Value for synthesised `audio` (samples,) of the utterance's text; NaN, best an `Unknown`, when it is not defined there."""

    def weight(self, utterance: Utterance) -> float:
        """Share of the utterance in the mean of a set; reference phones make an error rate the usual micro-average."""
        return 1.0

    def update(self, audio: Tensor, rate: int, utterance: Utterance) -> None:
        self.latest = self.score(audio, rate, utterance)
        self.values.append(torch.tensor([self.latest], dtype=torch.float64))
        self.weights.append(torch.tensor([self.weight(utterance)], dtype=torch.float64))

    @property
    def why(self) -> str:
        """Why the last value is none; "" when it is one."""
        return "" if isfinite(self.latest) else getattr(self.latest, "why", "not defined for this clip")

    def compute(self) -> Tensor:
        values, weights = _joined(self.values), _joined(self.weights)
        known = values.isfinite()
        return (values * weights)[known].sum() / weights[known].sum()


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """After a sync torchmetrics holds one tensor, before it a list."""
    return torch.cat(list(state)) if isinstance(state, list) else state
