"""What all recognisers of words have in common, and how one stands in for another that is not on the machine."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.configured import Configured
from ttsadapt.metrics.recognisers.normaliser import normalised, version

if TYPE_CHECKING:
    from ttsadapt.artifacts import Artifact


class Recogniser(Configured, ABC):
    """Audio in, words out. The constructor does no work."""

    @property
    @abstractmethod
    def model(self) -> str: ...

    @property
    @abstractmethod
    def version(self) -> str:
        """Of the model."""

    @property
    def normaliser(self) -> str:
        """What makes texts alike before they are compared, with its version."""
        return version()

    def missing(self, key: str) -> str | None:
        """As `UtteranceMetric.missing`; `key` of the config holds this recogniser."""
        return None

    def needs(self, corpus: Path, cache: Path) -> "tuple[Artifact, ...]":
        return ()

    def open(self, corpus: Path, cache: Path) -> None:
        """Load what `needs` built."""

    def own_errors(self) -> dict[str, dict[str, float]]:
        return {}

    def doubt(self, utterance: Utterance) -> Unknown | None:
        """Why it cannot judge the text of this utterance; None when it can."""
        return None

    def reference(self, text: str, language: str) -> str:
        """The text as `transcribe` would ideally write it, words separated by blanks."""
        return normalised(text, language)

    @abstractmethod
    def transcribe(self, audio: Tensor, language: str) -> str:
        """(samples,) at `signal.RATE` -> normalised words separated by blanks; "" for silence."""

    def hears(self, audio: Tensor, language: str, term: str) -> bool:
        """Whether the term is among what is said."""
        said, wanted = self.transcribe(audio, language), normalised(term, language)
        return re.search(rf"(?<!\S){re.escape(wanted)}(?!\S)", said) is not None
