"""How fast a model speaks: read from what a run of its own measured, each request alone and warmed up (`ttsadapt.speaking.clock`)."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import Unknown, UtteranceMetric
from ttsadapt.metrics.sidecar import NAME, Facts, facts


class SpokenMetric(UtteranceMetric):
    """Reads what is noted beside the clip, not the clip."""

    better: ClassVar[str] = "lower"
    spoken_only = True
    column: ClassVar[str]
    """of the table beside the clips, without which there is no value"""

    def __init__(self) -> None:
        super().__init__()
        self.noted: Facts = {}

    def beside(self, clip: Path) -> None:
        self.noted = facts(clip.parent).get(clip.stem, {})

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        if not self.noted.get(self.column):
            return Unknown(f"no {self.column} of the clip in {NAME} beside it")
        return self.read(self.noted)

    @abstractmethod
    def read(self, noted: Facts) -> float: ...


class Timing(SpokenMetric):
    """Wall time of a request on its own; it depends on the machine, which `model` names."""

    timed = True
    column: ClassVar[str] = "seconds"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))

    def __init__(self, limit: int | None = 10) -> None:
        """`limit`: sentences of a set that are spoken against the clock."""
        super().__init__()
        self.limit = limit

    @property
    def model(self) -> str:
        return f"one request at a time, warmed up, {self.noted.get('device', '')}"


class Latency(Timing):
    """Seconds from a request to the last sample of its speech."""

    name: ClassVar[str] = "latency"
    unit: ClassVar[str] = "s"

    def read(self, noted: Facts) -> float:
        return float(noted["seconds"])


class FirstAudio(Timing):
    """Seconds from a request to the first sample. Where a model does not stream it is the latency, and `model` says so."""

    name: ClassVar[str] = "first_audio"
    unit: ClassVar[str] = "s"
    column: ClassVar[str] = "first_audio"

    @property
    def model(self) -> str:
        how = "streamed" if self.noted.get("streamed") == "1" else "not streamed: equal to latency"
        return f"{super().model}, {how}"

    def read(self, noted: Facts) -> float:
        return float(noted["first_audio"])


class RealTimeFactor(Timing):
    """Seconds of work for a second of speech: below 1 is faster than real time."""

    name: ClassVar[str] = "rtf"
    unit: ClassVar[str] = "ratio"

    def read(self, noted: Facts) -> float:
        duration = float(noted["duration"] or 0)
        return float(noted["seconds"]) / duration if duration else Unknown("no audio came out")
