"""Levels of an utterance from frame to frame, and how far they range."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate, trimmed

FRAME, HOP = 0.025, 0.010
"""seconds"""
_SILENCE = 1e-10
"""mean square that stands for zeros: -100 dB"""


def levels(audio: Tensor) -> NDArray[np.float64]:
    """(samples,) at RATE -> (T,) root mean square of each frame in dB of full scale; (0,) for less than a frame."""
    frame, hop = round(FRAME * RATE), round(HOP * RATE)
    if len(audio) < frame:
        return np.zeros(0)
    power = audio.double().unfold(0, frame, hop).square().mean(-1).numpy()
    return 10 * np.log10(np.maximum(power, _SILENCE))


class EnergyRange(UtteranceMetric):
    """dB between the 5th and the 95th percentile of the levels of what is said, pauses left out; NaN for silence.

    The level itself does not matter: a model's output gain is no part of its expression.
    """

    name: ClassVar[str] = "energy_range"
    unit: ClassVar[str] = "dB"
    bounds: ClassVar[tuple[float, float]] = (0, float("inf"))
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.05, "silence": 1e-6, "shift": 0.5}
    better: ClassVar[str] = "near reference"

    def __init__(self, drop: float = 40.0) -> None:
        """`drop`: dB below the 95th percentile at which speech ends."""
        super().__init__()
        self.drop = drop

    @property
    def model(self) -> str:
        return f"levels, {self.drop:g} dB"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        level = levels(trimmed(at_rate(audio, rate)))
        said = level[level > np.percentile(level, 95) - self.drop] if len(level) else level
        if not len(said) or said.max() <= 10 * np.log10(_SILENCE) + 1:
            return SILENT
        low, high = np.percentile(said, [5, 95])
        return float(high - low)
