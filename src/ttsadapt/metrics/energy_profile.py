"""Is loudness put where the recording puts it: correlation of level contours along the DTW path."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, Unknown
from ttsadapt.metrics.parallel import ParallelMetric
from ttsadapt.metrics.signal import RATE, at_rate, recording, trimmed
from ttsadapt.metrics.world import PERIOD

_WINDOW, _HOP = RATE * 25 // 1000, round(RATE * PERIOD / 1000)


class EnergyProfile(ParallelMetric):
    """Pearson correlation x 100 of frame levels in dB (25 ms around each frame of the path), levels `drop` dB below the loudest frame
    and less counting as that low: how deep a pause is says nothing. A gain changes nothing."""

    name: ClassVar[str] = "energy_profile"
    unit: ClassVar[str] = "r x 100"
    steady: ClassVar[Mapping[str, float]] = {"gain": 0.1, "silence": 1e-6, "shift": 6.0}
    better: ClassVar[str] = "higher"
    bounds: ClassVar[tuple[float, float]] = (-100, 100)

    def __init__(self, drop: float = 50.0) -> None:
        super().__init__()
        self.drop = drop

    @property
    def model(self) -> str:
        return f"{super().model}, levels to -{self.drop:g} dB"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        pairs = self.comparison(audio, rate, utterance)
        if not len(pairs.i):
            return SILENT
        wanted = _of_recording(utterance.audio, self.drop)[pairs.i]
        got = contour(trimmed(at_rate(audio, rate)), self.drop)[pairs.j]
        if min(wanted.std(), got.std()) < 1e-6:
            return Unknown("its level does not change")
        return 100 * float(np.corrcoef(wanted, got)[0, 1])


def contour(audio: Tensor, drop: float) -> NDArray[np.float64]:
    """(samples,) at RATE -> (T,) dB below the loudest frame, frames as in `world.analyse`: one each PERIOD, the first around sample 0."""
    power = F.pad(audio.double(), (_WINDOW // 2, _WINDOW // 2 + _HOP)).unfold(0, _WINDOW, _HOP).square().mean(-1).numpy()
    level = 10 * np.log10(np.maximum(power / power.max(), 1e-20))
    return np.maximum(level, -drop)


@lru_cache(maxsize=64)
def _of_recording(path: Path, drop: float) -> NDArray[np.float64]:
    return contour(trimmed(recording(path)), drop)
