"""Is it spoken at the right speed."""

from collections.abc import Mapping
from math import log
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate, recording, speech


class DurationError(UtteranceMetric):
    """100 |ln(duration / duration of the recording)|, silence at both ends trimmed: 10 is about 10 % too long or too short.

    The same phones in both make it the error of the speech rate too. NaN for silence.
    """

    name: ClassVar[str] = "rate"
    compares = True
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 1.0, "silence": 1e-6, "shift": 2.0}
    better: ClassVar[str] = "lower"

    @property
    def model(self) -> str:
        return "trimmed duration"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        durations = []
        for clip in (at_rate(audio, rate), recording(utterance.audio)):
            start, end = speech(clip)
            durations.append((end - start) / RATE)
        if min(durations) <= 0:
            return SILENT
        got, wanted = durations
        return 100 * abs(log(got / wanted))
