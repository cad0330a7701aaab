"""Is it the right voice."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.base import Unknown
from ttsadapt.metrics.judged import JudgedMetric, cosine
from ttsadapt.metrics.judges.speaker import SpeakerEncoder
from ttsadapt.metrics.signal import at_rate, recording


class SpeakerSimilarity(JudgedMetric[SpeakerEncoder]):
    """Cosine x 100 of speaker vectors. The encoder never conditions a model.

    reference "voice": to the mean of the voice's recordings in the valid splits, which neither the judge nor a model learnt
    from (of the train splits where a voice has no others). "recording": to the utterance's own recording, same words and emotion.
    NaN for a voice of which there are no such recordings, and for silence.
    """

    name: ClassVar[str] = "speaker"
    unit: ClassVar[str] = "cos x 100"
    bounds: ClassVar[tuple[float, float]] = (-100, 100)
    steady: ClassVar[Mapping[str, float]] = {"gain": 3.0, "silence": 1e-4, "shift": 1.0}
    better: ClassVar[str] = "higher"

    def __init__(self, reference: Literal["voice", "recording"] = "voice", steps: int = 180) -> None:
        super().__init__(steps)
        if reference not in ("voice", "recording"):
            raise ConfigError(f"metric.speaker.reference={reference}: choose voice or recording")
        self.reference = reference
        self.compares = reference == "recording"

    def needs(self, corpus: Path, cache: Path) -> tuple[SpeakerEncoder]:
        return (SpeakerEncoder(corpus, cache, steps=self.steps),)

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        if self.reference == "voice":
            wanted = self.opened.voice(utterance.speaker)
            if wanted is None:
                return Unknown(f"{utterance.speaker} is no voice of the data that the judge knows: give data=, or reference=recording")
        else:
            wanted = self.opened.embed(recording(utterance.audio))
        return cosine(self.opened.embed(at_rate(audio, rate)), wanted)
