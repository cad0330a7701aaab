"""How sure a mean is: bootstrap intervals over utterances, paired where two systems said the same."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap


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

    `groups` (such as texts) are drawn as wholes. With `share` (hits and misses in %), values of only 0 and 100 get Wilson's
    interval, which stays honest when all of them agree. No interval from a single group.
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
    if share and np.isin(value, (0.0, 100.0)).all() and np.ptp(weight) == 0:
        wilson = binomtest(int((value == 100).sum()), len(value)).proportion_ci(method="wilson")
        return Interval(mean, 100 * float(wilson.low), 100 * float(wilson.high), n)
    if np.ptp(value) == 0:
        return Interval(mean, mean, mean, n)
    return Interval(mean, *_bootstrapped(value, weight, draws, seed), n)


def grouped(value: np.ndarray, weight: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and summed weight of each group: the mean over all stays what it was."""
    _, index = np.unique(groups, return_inverse=True)
    total = np.bincount(index, weight)
    return np.bincount(index, weight * value) / total, total


def _bootstrapped(value: np.ndarray, weight: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
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
