"""How sure a mean is: bootstrap intervals over utterances, paired where two systems said the same."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FEW = 10
"""texts below which no verdict is given: a bootstrap of fewer draws too few different samples, and its intervals are too narrow"""


def too_few(count: int, what: str = "text") -> str:
    """What is said in place of one."""
    return f"{count} {what}{' decides' if count == 1 else 's decide'} nothing: intervals of fewer than {FEW} are too narrow"


class Interval(NamedTuple):
    """A mean and where it lies with 95 % confidence; NaN where nothing is known."""

    mean: float
    low: float
    high: float
    n: int


def interval(
    values: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
    weights: ArrayLike | None = None,
    groups: Sequence[str] | None = None,
    share: bool = False,
) -> Interval:
    """Weighted mean of the finite values with a bias-corrected accelerated bootstrap (Efron 1987); `n` counts the values.

    `groups` (such as texts) are drawn as wholes. With `share` (hits and misses in %), values of only 0 and 100, or that all agree, get
    Wilson's interval, which stays honest there. No interval from a single group.
    """
    value = np.asarray(values, float)
    weight = np.ones(len(value)) if weights is None else np.asarray(weights, float)
    known = np.isfinite(value) & (weight > 0)
    value, weight, n = value[known], weight[known], int(known.sum())
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if groups is not None:
        value, weight = grouped(value, weight, np.asarray(groups)[known])
    mean = float(np.average(value, weights=weight))
    if len(value) == 1:
        return Interval(mean, math.nan, math.nan, n)
    if share and (np.isin(value, (0.0, 100.0)).all() or np.ptp(value) == 0):
        return Interval(mean, *wilson(mean, weight.sum() ** 2 / np.square(weight).sum()), n)
    if np.ptp(value) == 0:
        return Interval(mean, mean, mean, n)
    return Interval(mean, *_bootstrapped(value, weight, draws, seed), n)


def wilson(percent: float, n: float) -> tuple[float, float]:
    """Wilson's (1927) interval of a share in %; `n` may be Kish's effective number of weighted values."""
    p, z = percent / 100, 1.959964
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)


def grouped(value: np.ndarray, weight: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and summed weight of each group: the mean over all stays what it was."""
    _, index = np.unique(groups, return_inverse=True)
    total = np.bincount(index, weight)
    return np.bincount(index, weight * value) / total, total


def _bootstrapped(value: np.ndarray, weight: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    def mean(v: np.ndarray, w: np.ndarray, axis: int = -1) -> np.ndarray:
        return (v * w).sum(axis) / w.sum(axis)

    for method in ("BCa", "percentile"):  # the acceleration is undefined for some very small samples
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)
            found = bootstrap(
                (value, weight), mean, paired=True, vectorized=True, n_resamples=draws, method=method, rng=np.random.default_rng(seed)
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            break
    return float(found.low), float(found.high)


def paired_interval(
    tuned: ArrayLike,
    base: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
    weights: ArrayLike | None = None,
    groups: Sequence[str] | None = None,
) -> Interval:
    """Of the change per utterance, tuned - base; pairs of which one is NaN are left out."""
    return interval(np.asarray(tuned, float) - np.asarray(base, float), draws, seed, weights, groups)


def share_above(change: ArrayLike, weights: ArrayLike, groups: Sequence[str], draws: int = 2000, seed: int = 0) -> float:
    """Of draws of the groups anew, in which the weighted mean is above 0; a mean of 0 counts as half of one."""
    value, weight = grouped(np.asarray(change, float), np.asarray(weights, float), np.asarray(groups))
    pick = np.random.default_rng(seed).integers(0, len(value), (draws, len(value)))
    drawn = (value * weight)[pick].sum(1)
    return float((drawn > 0).mean() + 0.5 * (drawn == 0).mean())
