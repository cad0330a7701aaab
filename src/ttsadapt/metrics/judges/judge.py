"""What judges have in common: a folder with weights and a card that says how well they judge."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ttsadapt.artifacts import Artifact
from ttsadapt.errors import UserError
from ttsadapt.files import digest, read_json, write_json
from ttsadapt.metrics.judges.clips import Clips

N = TypeVar("N", bound=nn.Module)


class Judge(Artifact, Generic[N]):
    """`weights.safetensors` and `card.json` below `cache/judges/<name>-<digest>`; the digest covers corpus, settings and revision."""

    name: ClassVar[str]
    revision: ClassVar[int]
    """raise it when training or architecture change"""

    def __init__(self, corpus: Path, cache: Path, **settings: Any) -> None:
        self.corpus, self.cache = Path(corpus), Path(cache)
        self.clips = Clips(self.corpus, self.cache)
        self.version = f"{self.revision}-{digest([self.name, self.revision, self.clips.digest, settings])}"
        self.folder = self.cache / "judges" / f"{self.name}-{self.version}"
        self._card: dict[str, Any] | None = None
        self._model: N | None = None

    def needs(self) -> tuple[Artifact, ...]:
        return (self.clips,)

    @abstractmethod
    def network(self, card: dict[str, Any]) -> N:
        """The untrained network of the size that the card's classes ask for."""

    @property
    def card(self) -> dict[str, Any]:
        """name, version, classes, steps, "error" {set: its own error on held-out recordings}."""
        if self._card is None:
            self._card = read_json(self._there / "card.json")
        return self._card

    @property
    def model(self) -> N:
        if self._model is None:
            with torch.inference_mode(False):  # first asked for inside of it, the weights would be good for nothing else
                model = self.network(self.card)
                model.load_state_dict(load_file(self._there / "weights.safetensors"))
            self._model = model.eval()
        return self._model

    def write(self, folder: Path, model: nn.Module, card: dict[str, Any]) -> None:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "weights.safetensors")
        write_json(folder / "card.json", {"name": self.name, "version": self.version, "torch": torch.__version__} | card)

    @property
    def _there(self) -> Path:
        if not self.done:
            raise UserError(
                f"no {self.name} for {self.corpus.name} in {self.folder}: run the command that asked for it again, it builds it"
            )
        return self.folder
