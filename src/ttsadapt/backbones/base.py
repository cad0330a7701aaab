"""What a text-to-speech model must offer so that any strategy can adapt it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError
from ttsadapt.heads import Heads

Batch = dict[str, Any]
"""Tensors of B padded utterances. Every batch has "ids" (list of B str), "speaker" (B, E) float and "origin" (B,) long:
TARGET or SOURCE."""

TARGET, SOURCE = 0, 1


@dataclass(frozen=True)
class Reference:
    """A recording of a voice that a model goes on from. Frontends choose it from training recordings, in `enroll`."""

    phones: tuple[str, ...]
    """what is said in it"""
    codes: Tensor
    """the recording as the model's codec has it: (steps,) or (steps, levels)"""
    language: str = "en-us"


@dataclass(frozen=True)
class Request:
    """Something to be spoken."""

    id: str
    phones: tuple[str, ...]
    """symbols as in `Phone.symbol`, without times"""
    speaker: Tensor
    """(E,) the conditioning vector of the voice"""
    emotion: str = "neutral"
    language: str = "en-us"
    seed: int = 0
    reference: Reference | None = None
    """for models that clone by going on from a recording"""


class Frontend(ABC):
    """Utterance -> CPU tensors -> batch. Picklable. Everything learnt from data (tables, statistics, codecs) is its state."""

    heard: Sequence[Utterance] = ()
    """training recordings of the other sets, set before `fit`: a codec is fitted on them too, as released codecs have heard all kinds
    of voices; the model and its tables are not"""

    @abstractmethod
    def fit(self, utterances: Sequence[Utterance]) -> None:
        """Learn symbol tables, statistics, codebooks from the pretraining data, with a progress bar when it takes long."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain containers and tensors only (it is saved beside the weights and read with weights_only=True)."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None: ...

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Learn further voices from their training recordings; a frontend without voice conditioning has nothing to do."""

    @property
    def known_speakers(self) -> list[str]:
        """Whose voices can be asked for: those of the pretraining data and those that were enrolled; [] when it is told no voice."""
        return []

    @abstractmethod
    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """Features of one utterance. Raises DataError in one line when it cannot be used (no alignment, silence ...)."""

    @abstractmethod
    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        """Supervised positions by unit, such as {"frames": 120, "phones": 31}. "frames" is always there: rehearsal and speed count it."""

    @abstractmethod
    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """Pad B utterances into a batch. Randomness that a teacher must share is drawn here. The caller adds ids, origin, totals."""

    @abstractmethod
    def request(self, utterance: Utterance) -> Request:
        """Ask for the utterance's text in its voice and emotion, without looking at its recording."""


class Backbone(nn.Module, ABC):
    """A model. `frontend` is given to the constructor (it may still be unfitted: then `build` is called after `fit`)."""

    adaptable: ClassVar[tuple[str, ...]] = ()
    """globs over names of the linear and convolution layers that an adapter may take the place of"""
    components: ClassVar[dict[str, tuple[str, ...]]] = {}
    """named groups of parameters (globs), for freezing and learning rates"""

    frontend: Frontend
    sample_rate: int

    @property
    @abstractmethod
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """Groups of blocks of one rate and width, from input to output: {"decoder": {"0": ...}}.

        A block returns (B, T, C), or a tuple that starts with it.
        """

    @property
    def peft_root(self) -> nn.Module:
        """The module that LoRA is saved against: the inner transformers model where there is one, else the backbone."""
        return self

    @abstractmethod
    def forward(self, batch: Batch) -> Heads:
        """Teacher-forced prediction at supervised positions only."""

    @abstractmethod
    def synthesize(self, requests: Sequence[Request], progress: Callable[[int], None] | None = None) -> list[Tensor]:
        """Waveforms (samples,) in [-1, 1] at `sample_rate`. Eval mode and inference mode are the method's own business.

        The same request gives the same samples whatever else is in the list (each carries its seed). `progress(n)` after n more.
        """

    @abstractmethod
    def resynthesize(self, audio: Tensor) -> Tensor:
        """(samples,) -> (samples,) through the codec or vocoder alone: the ceiling of what this backbone can sound like."""

    @classmethod
    def load_official(cls, frontend: Frontend, path: str, **settings: Any) -> Self:
        """The model in a file (or folder) that its authors released: sizes are read off it, `settings` are about synthesis.

        CheckpointError in one line when it is another family's, incomplete or corrupt.
        """
        raise CheckpointError(f"{cls.__name__} has no released format")

    def save_official(self, path: Path) -> None:
        """Write what `load_official` reads, as the authors' own code reads it, adapters merged in."""
        raise CheckpointError(f"{type(self).__name__} has no released format")

    @abstractmethod
    def block_mask(self, batch: Batch, group: str) -> Tensor:
        """(B, T) bool: which positions of a block's output carry speech (layer analysis pools only these)."""


def supervised(batch: Batch, unit: str, origins: Sequence[int] = (TARGET, SOURCE)) -> float:
    """What a sum over this batch's positions is divided by: the positions of the whole optimiser step with these origins.

    A step's gradient is the mean over ranks and accumulated batches, so each of them divides by its share of the total.
    """
    return max(sum(batch["totals"][unit][origin] for origin in origins) * batch.get("share", 1.0), 1e-9)


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
