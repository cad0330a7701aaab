"""Is it intelligible: phone error rate by a recogniser that was trained on the corpus's recordings."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import Unknown, UtteranceMetric
from ttsadapt.metrics.judges.recogniser import Recogniser, errors, phones_of
from ttsadapt.metrics.signal import at_rate


class PhoneErrorRate(UtteranceMetric):
    """100 (substitutions + deletions + insertions) / phones of the text; the mean of a set is the micro-average.

    NaN in a language that the recogniser was not trained on. Silence is one deletion a phone, not NaN.
    """

    name: ClassVar[str] = "per"
    reads = True
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-6}
    better: ClassVar[str] = "lower"

    def __init__(self, steps: int = 1200) -> None:
        """`steps`: how long the recogniser is trained."""
        super().__init__()
        self.steps = steps
        self.judge: Recogniser | None = None

    @property
    def model(self) -> str:
        return "ctc-phones"

    @property
    def revision(self) -> str:
        return self.judge.version if self.judge else ""

    def own_errors(self) -> dict[str, dict[str, float]]:
        return {self.judge.name: self.judge.card["error"]} if self.judge else {}

    def needs(self, corpus: Path, cache: Path) -> tuple[Recogniser]:
        return (Recogniser(corpus, cache, steps=self.steps),)

    def open(self, corpus: Path, cache: Path) -> None:
        (self.judge,) = self.needs(corpus, cache)

    @property
    def opened(self) -> Recogniser:
        """The judge to ask."""
        assert self.judge is not None, "open comes first"
        return self.judge

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        wanted = phones_of(utterance)
        if not wanted:
            return Unknown("no phones in the text")
        if utterance.language not in self.opened.languages:
            return Unknown(f"{utterance.language} is not among the recogniser's languages ({', '.join(self.opened.languages)})")
        return 100 * errors(wanted, self.opened.transcribe(at_rate(audio, rate))) / len(wanted)

    def weight(self, utterance: Utterance) -> float:
        return float(len(phones_of(utterance)))
