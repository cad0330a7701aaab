"""Krippendorff's alpha: how far listeners agree beyond chance, whatever ratings are missing."""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def alpha(units: Iterable[Sequence[float]]) -> float:
    """1 - observed over expected disagreement, interval data (Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C).

    `units`: the ratings of each thing rated; those with fewer than two do not count. 1: perfect, 0: as by chance; NaN when nothing varies.
    """
    pairable = [np.asarray(u, float) for u in units if len(u) > 1]
    if not pairable:
        return math.nan
    values, counts = np.unique(np.concatenate(pairable), return_counts=True)
    apart = (values[:, None] - values[None]) ** 2  # (values, values)
    total = int(counts.sum())
    observed = sum(_within(u, values, apart) / (len(u) - 1) for u in pairable) / total
    expected = float(counts @ apart @ counts) / (total * (total - 1))
    return 1 - observed / expected if expected > 0 else math.nan


def _within(unit: np.ndarray, values: np.ndarray, apart: np.ndarray) -> float:
    own = (unit[:, None] == values[None]).sum(0)
    return float(own @ apart @ own)
