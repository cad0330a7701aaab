"""Is it the right emotion. Three views of one judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, Unknown
from ttsadapt.metrics.judged import JudgedMetric, cosine
from ttsadapt.metrics.judges.emotion import EmotionEncoder
from ttsadapt.metrics.signal import at_rate, recording


class _EmotionMetric(JudgedMetric[EmotionEncoder]):
    better: ClassVar[str] = "higher"

    def __init__(self, steps: int = 300) -> None:
        super().__init__(steps)

    def needs(self, corpus: Path, cache: Path) -> tuple[EmotionEncoder]:
        return (EmotionEncoder(corpus, cache, steps=self.steps),)


def _unheard(heard: Mapping[str, float] | None, utterance: Utterance) -> Unknown:
    if heard is None:
        return SILENT
    return Unknown(f"{utterance.emotion} is not among the judge's emotions ({', '.join(sorted(heard))})")


class EmotionAccuracy(_EmotionMetric):
    """100 when the judge hears the emotion that was asked for, else 0. NaN for an emotion that it never learnt, and for silence."""

    name: ClassVar[str] = "emotion"
    unit: ClassVar[str] = "%"
    share = True
    bounds: ClassVar[tuple[float, float]] = (0, 100)
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-4}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        heard = self.opened.probabilities(at_rate(audio, rate))
        if heard is None or utterance.emotion not in heard:
            return _unheard(heard, utterance)
        return 100.0 * (max(heard, key=heard.__getitem__) == utterance.emotion)


class EmotionProbability(_EmotionMetric):
    """The judge's probability of the emotion that was asked for, in %: it moves before the accuracy does."""

    name: ClassVar[str] = "emotion_probability"
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float]] = (0, 100)
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-4}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        heard = self.opened.probabilities(at_rate(audio, rate))
        if heard is None or utterance.emotion not in heard:
            return _unheard(heard, utterance)
        return 100 * heard[utterance.emotion]


class EmotionSimilarity(_EmotionMetric):
    """Cosine x 100 of emotion vectors, to the utterance's own recording: same voice, same words.

    Such vectors leak words and voice (arXiv 2604.26347), so it is a second opinion, not the main one.
    """

    name: ClassVar[str] = "emotion_similarity"
    compares = True
    unit: ClassVar[str] = "cos x 100"
    bounds: ClassVar[tuple[float, float]] = (-100, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 2.0, "silence": 1e-4, "shift": 1.0}

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        return cosine(self.opened.embed(at_rate(audio, rate)), self.opened.embed(recording(utterance.audio)))
