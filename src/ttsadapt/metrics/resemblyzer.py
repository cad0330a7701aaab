"""Is it the right voice, asked of an encoder that never saw this corpus: Resemblyzer (GE2E, Wan et al. 2018)."""

from functools import cache
from importlib.metadata import version as installed
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ttsadapt.metrics.voices import VoiceSimilarity


class ResemblyzerSimilarity(VoiceSimilarity):
    """Values lie high (two voices: 50 to 80)."""

    name: ClassVar[str] = "resemblyzer"

    def __init__(self, reference: Literal["voice", "recording"] = "recording", recordings: int = 16) -> None:
        super().__init__(reference, recordings)

    @property
    def model(self) -> str:
        return f"resemblyzer, to the {self.reference}"

    @property
    def revision(self) -> str:
        return installed("resemblyzer")

    def missing(self) -> str | None:
        return None if find_spec("resemblyzer") else "it needs the package resemblyzer: pip install 'ttsadapt[resemblyzer]'"

    def embed(self, audio: Tensor) -> Tensor:
        return torch.from_numpy(_encoder().embed_utterance(audio.numpy()))


@cache
def _encoder() -> Any:
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)
