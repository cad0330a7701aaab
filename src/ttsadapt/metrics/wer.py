"""Is it intelligible: word and character error rates, and what the errors are."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import jiwer
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.available import tell
from ttsadapt.metrics.base import Unknown, UtteranceMetric
from ttsadapt.metrics.recognisers.base import Recogniser
from ttsadapt.metrics.signal import at_rate

if TYPE_CHECKING:
    from ttsadapt.artifacts import Artifact

Part = Literal["all", "substitutions", "deletions", "insertions"]


class Recognised(UtteranceMetric):
    """What asks a recogniser, or `otherwise` where the recogniser's model is not on the machine; `model` tells which it was."""

    reads = True

    def __init__(self, recogniser: Recogniser, otherwise: Recogniser | None) -> None:
        """`otherwise` None: the metric is left out where `recogniser` is missing."""
        super().__init__()
        self.first, self.otherwise = recogniser, otherwise

    @property
    def recogniser(self) -> Recogniser:
        return self.otherwise if self.otherwise is not None and self.first.missing("") else self.first

    def missing(self) -> str | None:
        key = f"metric.{self.name.partition('_')[0]}"  # metrics of one file share the recogniser of its first
        line = self.first.missing(f"{key}.recogniser")
        if line is None or self.otherwise is None:
            return line
        if other := self.otherwise.missing(f"{key}.otherwise"):
            return f"{line}; and {other}"
        tell(f"words are heard by {self.otherwise.model}: {self.instead()}")
        return None

    def instead(self) -> str:
        return (self.first.missing("metric.<name>.recogniser") or "") if self.otherwise is not None else ""

    @property
    def settings(self) -> dict[str, str]:
        """Those of the recogniser that is asked, too."""
        return {k: v for k, v in super().settings.items() if k not in ("recogniser", "otherwise")} | self.recogniser.settings

    @property
    def model(self) -> str:
        return f"{self.recogniser.model}, {self.normaliser}"

    @property
    def normaliser(self) -> str:
        return self.recogniser.normaliser

    @property
    def revision(self) -> str:
        return self.recogniser.version

    def own_errors(self) -> dict[str, dict[str, float]]:
        return self.recogniser.own_errors()

    def needs(self, corpus: Path, cache: Path) -> "tuple[Artifact, ...]":
        return self.recogniser.needs(corpus, cache)

    def open(self, corpus: Path, cache: Path) -> None:
        self.recogniser.open(corpus, cache)


class WordErrorRate(Recognised):
    """100 errors / words of the text; the mean of a set is the micro-average. Silence is one deletion a word, not NaN.

    `part` counts one kind of error only: deletions are skipped words, insertions babble.
    """

    name: ClassVar[str] = "wer"
    unit: ClassVar[str] = "%"
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-6}
    better: ClassVar[str] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))

    def __init__(self, recogniser: Recogniser, otherwise: Recogniser | None, part: Part = "all") -> None:
        super().__init__(recogniser, otherwise)
        if part not in ("all", "substitutions", "deletions", "insertions"):
            raise ConfigError(f"metric.{self.name}.part={part}: choose all, substitutions, deletions or insertions")
        self.part = part

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        judge = self.recogniser
        if doubt := judge.doubt(utterance):
            return doubt
        wanted = judge.reference(utterance.text, utterance.language)
        if not wanted:
            return Unknown("no words in the text")
        found = self.compared(wanted, judge.transcribe(at_rate(audio, rate), utterance.language))
        kinds = ("substitutions", "deletions", "insertions") if self.part == "all" else (self.part,)
        return 100 * sum(int(getattr(found, kind)) for kind in kinds) / self.count(wanted)

    def compared(self, wanted: str, heard: str) -> jiwer.WordOutput | jiwer.CharacterOutput:
        return jiwer.process_words(wanted, heard)

    def count(self, wanted: str) -> int:
        return len(wanted.split())

    def weight(self, utterance: Utterance) -> float:
        return float(self.count(self.recogniser.reference(utterance.text, utterance.language)))


class CharacterErrorRate(WordErrorRate):
    """The same on characters, blanks between words included."""

    name: ClassVar[str] = "cer"

    def compared(self, wanted: str, heard: str) -> jiwer.WordOutput | jiwer.CharacterOutput:
        return jiwer.process_characters(wanted, heard)

    def count(self, wanted: str) -> int:
        return len(wanted)


class Failed(WordErrorRate):
    """100 when more words are wrong than `above` %, else 0: one clip that fails can weigh more than many that stumble."""

    name: ClassVar[str] = "wer_failed"
    unit: ClassVar[str] = "% of clips"
    share = True
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    def __init__(self, recogniser: Recogniser, otherwise: Recogniser | None, above: float = 50.0) -> None:
        """`above`: the word error rate in % above which a clip has failed."""
        super().__init__(recogniser, otherwise)
        self.above = above

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        found = super().score(audio, rate, utterance)
        return found if isinstance(found, Unknown) else 100.0 * (found > self.above)

    def weight(self, utterance: Utterance) -> float:
        return 1.0
