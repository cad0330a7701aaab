"""What a text-to-speech model must offer so that any strategy can adapt it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ttsadapt.backbones.knobs import SAMPLING, Knob
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError
from ttsadapt.heads import Heads

Batch = dict[str, Any]
"""Tensors of B padded utterances. Every batch has "ids" (list of B str), "speaker" (B, E) float, "origin" (B,) long: TARGET or
SOURCE, and what `distinct` says of its voices."""

Listener = Callable[[Batch], None]
"""is told before every pass whose voices it is in"""

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
    voice: str = ""
    """name of the speaker, for what knows voices by name"""


class Slot(NamedTuple):
    """Modules of one width after which an adapter may stand: each gives (B, T, width), a row for each utterance of the batch.

    Where a convolution gives (B, C, T) the module that follows its transposition is named.
    """

    width: int
    modules: tuple[str, ...]
    """globs over their names"""


class Frontend(ABC):
    """Utterance -> CPU tensors -> batch. Picklable. Everything learnt from data (tables, statistics, codecs) is its state."""

    heard: Sequence[Utterance] = ()
    """training recordings of the other sets, set before `fit`: a codec is fitted on them too, as released codecs have heard all kinds
    of voices; the model and its tables are not"""

    def refuse(self, utterances: Sequence[Utterance]) -> None:
        """Raise DataError for what could never be learnt from, by the manifest alone: it is asked before a base is pretrained."""

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
    listeners: tuple[Listener, ...] = ()

    @property
    def slots(self) -> dict[str, Slot]:
        """Where bottlenecks go, by group; in a Transformer after each block's feed-forward, before the residual."""
        return {}

    @property
    def knobs(self) -> dict[str, Knob]:
        """Settings of synthesis that need no training to be changed, by name."""
        return dict(SAMPLING) if hasattr(self, "sampling") else {}

    def voice_vector(self, speaker: Tensor) -> Tensor:
        """(B, E) vectors of voices -> (B, E') as the model itself takes them in."""
        return speaker

    def listen(self, listener: Listener) -> None:
        """From now on `listener` is told of every batch before `forward`, and before `synthesize` speaks of who is speaking."""
        if not self.listeners:
            self.register_forward_pre_hook(_announce)
        self.listeners = (*self.listeners, listener)

    @torch.no_grad()
    def announce(self, requests: Sequence[Request]) -> None:
        """Tell the listeners whose voices the next rows are in: a batch without anything to predict."""
        if self.listeners:
            speaker, names = torch.stack([r.speaker for r in requests]), [r.voice for r in requests]
            batch: Batch = {"ids": [r.id for r in requests], "speaker": speaker} | distinct(speaker, names)
            batch = to_device(batch, next(self.parameters()).device)
            for listener in self.listeners:
                listener(batch)

    @property
    @abstractmethod
    def blocks(self) -> dict[str, dict[str, nn.Module]]:
        """Groups of blocks of one rate and width, from input to output: {"decoder": {"0": ...}}; the last group is the default.

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

    def stream(self, request: Request) -> Iterator[Tensor]:
        """Pieces (samples,) of the waveform of `synthesize`, each as soon as it can be heard.

        This one waits for the whole; `metric.first_audio` is less than the latency only of a model that has its own.
        """
        yield from self.synthesize([request])

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


def _announce(backbone: nn.Module, arguments: tuple[Batch]) -> None:
    for listener in backbone.listeners:  # type: ignore[union-attr]
        listener(arguments[0])


def distinct(speaker: Tensor, names: Sequence[str]) -> Batch:
    """Which rows of a batch are in the same voice: by their names and their vectors (B, E), which are on the CPU.

    "voices": names (B,); "voice_first": S row numbers, the first of each distinct voice; "voice_index" (B,) long: which of the S
    a row is in. Lists stay on the host, so that nobody has to ask the device how many voices there are.
    """
    keys = [(name, tuple(vector)) for name, vector in zip(names, speaker.tolist())]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    order = sorted(first.values())
    place = {keys[i]: s for s, i in enumerate(order)}
    return {"voices": list(names), "voice_first": order, "voice_index": torch.tensor([place[key] for key in keys])}


def supervised(batch: Batch, unit: str, origins: Sequence[int] = (TARGET, SOURCE)) -> float:
    """What a sum over this batch's positions is divided by: the positions of the whole optimiser step with these origins.

    A step's gradient is the mean over ranks and accumulated batches, so each of them divides by its share of the total.
    """
    return max(sum(batch["totals"][unit][origin] for origin in origins) * batch.get("share", 1.0), 1e-9)


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
