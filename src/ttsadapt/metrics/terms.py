"""Are the words of a list said so that they are heard: pronunciation of terms, for models that are tuned to a domain."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.recognisers.base import Recogniser
from ttsadapt.metrics.recognisers.normaliser import words_of
from ttsadapt.metrics.signal import at_rate
from ttsadapt.metrics.wer import Recognised


class TermAccuracy(Recognised):
    """Listed terms of the text that are heard, in % of them; a set's mean counts terms. NaN for a text that has none of them."""

    name: ClassVar[str] = "terms"
    unit: ClassVar[str] = "% of terms"
    share = True
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-6}
    better: ClassVar[str] = "higher"
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    def __init__(self, recogniser: Recogniser, otherwise: Recogniser | None, words: list[str] | None, path: str | None) -> None:
        """The terms: `words`, and the lines of the text file `path`."""
        super().__init__(recogniser, otherwise)
        self.words, self.path = list(words or []), path

    @property
    def settings(self) -> dict[str, str]:
        return super().settings | {"words": digest(sorted(set(self.listed)), 8)}

    def missing(self) -> str | None:
        """Raises DataError or ConfigError for a list that cannot be read: at once, not after hours of training."""
        if not self.listed:
            return "it has no terms: give metric.terms.words=[...] or metric.terms.path=<file with one a line>"
        return super().missing()

    @cached_property
    def listed(self) -> list[str]:
        if self.path is None:
            return self.words
        file = Path(self.path).expanduser()
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"metric.terms.path={self.path} cannot be read ({error}): give a text file with one term a line") from error
        if not any(line.strip() for line in lines):
            raise ConfigError(f"metric.terms.path={self.path} holds no term: write one a line")
        return [*self.words, *(line.strip() for line in lines if line.strip())]

    def of(self, utterance: Utterance) -> list[str]:
        """The listed terms that its text has."""
        text = f" {' '.join(words_of(utterance.text))} "
        return [term for term in dict.fromkeys(self.listed) if f" {' '.join(words_of(term))} " in text]

    @property
    def normaliser(self) -> str:
        return f"{len(self.listed)} terms, {super().normaliser}"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        terms = self.of(utterance)
        if not terms:
            return Unknown("no listed term in the text")
        clip = at_rate(audio, rate)
        return 100 * sum(self.recogniser.hears(clip, utterance.language, term) for term in terms) / len(terms)

    def weight(self, utterance: Utterance) -> float:
        return float(len(self.of(utterance)))
