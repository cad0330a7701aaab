"""How lively the melody is, whatever the height of the voice."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyworld
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics import world
from ttsadapt.metrics.base import Unknown, UtteranceMetric
from ttsadapt.metrics.signal import at_rate, trimmed

_FEWEST = 10
"""voiced frames below which nothing is said"""


class F0Variation(UtteranceMetric):
    """Standard deviation of F0 in semitones over voiced frames, which in Hz would grow with the voice's height."""

    name: ClassVar[str] = "f0_variation"
    unit: ClassVar[str] = "semitones"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.01, "silence": 1e-6, "shift": 0.02}
    better: ClassVar[str] = "near reference"

    @property
    def model(self) -> str:
        return "pyworld dio+stonemask+d4c"

    @property
    def revision(self) -> str:
        return f"{pyworld.__version__}-{world.REVISION}"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        f0 = world.of_samples(trimmed(at_rate(audio, rate)).numpy().tobytes()).f0
        voiced = f0[f0 > 0]
        return float((12 * np.log2(voiced)).std()) if len(voiced) >= _FEWEST else Unknown(f"fewer than {_FEWEST} voiced frames")
