"""Guards for what a model puts out: how much of a clip is silence, and how much of it is cut off at full scale."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, Unknown, UtteranceMetric
from ttsadapt.metrics.levels import levels
from ttsadapt.metrics.signal import at_rate


class SilenceShare(UtteranceMetric):
    """Frames of the whole clip, its ends included, that are `drop` dB or more below the 95th percentile of its levels, in %.

    NaN for a clip of nothing but zeros. `pauses` looks inside the utterance only.
    """

    name: ClassVar[str] = "silence"
    unit: ClassVar[str] = "%"
    steady: ClassVar[Mapping[str, float]] = {"gain": 1.0}
    better: ClassVar[str] = "near reference"
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    def __init__(self, drop: float = 40.0) -> None:
        super().__init__()
        self.drop = drop

    @property
    def model(self) -> str:
        return f"levels, {self.drop:g} dB"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        audio = at_rate(audio, rate)
        level = levels(audio)
        if not len(level) or not audio.any():
            return SILENT
        loud = np.percentile(level, 95)
        if loud <= -99:  # a click in a clip of zeros
            loud = level.max()
        return 100 * float((level <= loud - self.drop).mean())


class Clipping(UtteranceMetric):
    """Samples at full scale, in %, of the clip's own file: a resampled clip rounds its corners off."""

    name: ClassVar[str] = "clipping"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    def __init__(self, full: float = 0.999) -> None:
        """`full`: share of full scale from which a sample counts."""
        super().__init__()
        self.full = full
        self.file: Path | None = None

    @property
    def model(self) -> str:
        return f"samples from {self.full:g} of full scale"

    def beside(self, clip: Path) -> None:
        self.file = clip

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        file, self.file = self.file, None
        samples = soundfile.read(file, dtype="float32")[0] if file is not None else audio.numpy()
        return 100 * float((np.abs(samples) >= self.full).mean()) if samples.size else Unknown("the clip is empty")
