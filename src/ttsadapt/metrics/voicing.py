"""Pitch and voicing frame by frame: gross pitch error (Rabiner et al. 1976), voicing decision error (Nakatani et al. 2008) and their
sum, the F0 frame error (Chu & Alwan 2009), along the DTW path to the recording; `ttsadapt.metrics.ffe` is the unaligned one."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, Unknown
from ttsadapt.metrics.parallel import Comparison, ParallelMetric

GROSS = 0.2
"""share of the recording's F0 beyond which an error is gross"""
_FEWEST = 10
"""frames voiced in both below which nothing is said of pitch"""


class _Voicing(ParallelMetric):
    unit: ClassVar[str] = "%"
    steady: ClassVar[Mapping[str, float]] = {"gain": 2.0, "silence": 1e-6, "shift": 8.0}
    better: ClassVar[str] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0, 100)


def gross(pairs: Comparison) -> np.ndarray:
    """(P,) bool: voiced in both, and more than GROSS apart."""
    wanted = np.where(pairs.voiced, pairs.wanted, 1.0)
    return pairs.voiced & (np.abs(pairs.got / wanted - 1) > GROSS)


def misvoiced(pairs: Comparison) -> np.ndarray:
    """(P,) bool: voiced in one only."""
    return (pairs.wanted > 0) != (pairs.got > 0)


class GrossPitchError(_Voicing):
    """Frames with a gross error in % of those that are voiced in both."""

    name: ClassVar[str] = "gpe"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        pairs = self.comparison(audio, rate, utterance)
        voiced = int(pairs.voiced.sum())
        return 100 * float(gross(pairs).sum()) / voiced if voiced >= _FEWEST else Unknown(f"fewer than {_FEWEST} frames voiced in both")


class VoicingDecisionError(_Voicing):
    """Frames that are voiced in one only, in % of all."""

    name: ClassVar[str] = "vde"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        pairs = self.comparison(audio, rate, utterance)
        return 100 * float(misvoiced(pairs).mean()) if len(pairs.wanted) else SILENT


class AlignedF0FrameError(_Voicing):
    """Frames with either error in % of all."""

    name: ClassVar[str] = "ffe_aligned"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        pairs = self.comparison(audio, rate, utterance)
        return 100 * float((gross(pairs) | misvoiced(pairs)).mean()) if len(pairs.wanted) else SILENT
