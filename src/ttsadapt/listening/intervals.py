"""How sure means of ratings are, when both the listeners and the sentences are samples of more."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ttsadapt.reports.numbers import Estimate

DRAWS = 2000
FEWEST = 4
"""listeners and sentences from which an interval is given: of fewer, two who happen to agree make it as narrow as one likes"""

ALIKE = "all alike"
"""why there is no interval of ratings that do not vary"""


class Crossed:
    """Ratings of items by listeners on sentences, not every listener on everything.

    Bootstrap of both (Owen 2007, "The pigeonhole bootstrap"): listeners and sentences are drawn anew, independently, and a rating counts
    as often as its listener times its sentence. Every item sees the same draws. That counts the noise of single ratings three times
    (Owen's theorem 3), so deviations are shrunk to the variance that two-way clustering gives: drawing listeners alone, plus drawing
    sentences alone, minus drawing single ratings (Cameron, Gelbach and Miller 2011, eq. 2.11), never below the larger of the first two;
    and stretched as Student's t is over the normal with as many degrees of freedom as the fewer of listeners and sentences, less one (their
    section 2.3): with ten of either, a bootstrap alone is too sure of itself.
    """

    def __init__(
        self, listeners: Sequence[str], sentences: Sequence[str], items: Sequence[str], values: Sequence[float], seed: int = 0
    ) -> None:
        """All of one length, the number of ratings."""
        _, self.listener = np.unique(listeners, return_inverse=True)
        _, self.sentence = np.unique(sentences, return_inverse=True)
        self.names, self.item = np.unique(items, return_inverse=True)
        self.value = np.asarray(values, float)
        self.shape = (int(self.listener.max()) + 1, int(self.sentence.max()) + 1)
        rng = np.random.default_rng(seed)
        self._drawn = [rng.multinomial(n, np.full(n, 1 / n), DRAWS).astype(float) for n in self.shape]  # (DRAWS, listeners or sentences)

    @property
    def unknown(self) -> str:
        """Why there is no interval where there is none."""
        few = [name for name, n in zip(("listeners", "sentences"), self.shape) if n < FEWEST]
        return f"too few {' and '.join(few)}" if few else ALIKE

    def mean(self, item: str) -> Estimate:
        """Of an item's ratings, every rating counting alike; no interval where they do not vary. It stays within the scale's used part."""
        mine = self._of(item)
        found = self._estimate(self.value, mine.astype(float) / mine.sum(), int(mine.sum()))
        return found._replace(low=max(found.low, self.value.min()), high=min(found.high, self.value.max()))

    def difference(self, item: str, other: str) -> Estimate:
        """item - other, each listener's severity and each sentence's difficulty taken off: what is left is the systems'.

        In a balanced design that is the difference of the means; of so few that there is no interval, and where the design does not tell
        systems from sentences, it is that, too.
        """
        one, two = self._of(item), self._of(other)
        weight = one / one.sum() - two / two.sum()
        apart = min(self.shape) >= FEWEST and self._told_apart(item, other)
        return self._estimate(self._adjusted if apart else self.value, weight, int(one.sum() + two.sum()))

    def _of(self, item: str) -> np.ndarray:
        return self.names[self.item] == item

    @cached_property
    def _design(self) -> np.ndarray:
        """(ratings, listeners + sentences + items): 1 where a rating is of it."""
        return np.hstack([np.eye(n)[i] for n, i in zip((*self.shape, len(self.names)), (self.listener, self.sentence, self.item))])

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.pinv(self._design.T @ self._design, hermitian=True)

    def _told_apart(self, item: str, other: str) -> bool:
        """Whether the additive model fixes the difference of the two: one listener who hears each sentence once does not."""
        contrast = np.concatenate([np.zeros(sum(self.shape)), 1.0 * (self.names == item) - (self.names == other)])
        return np.allclose(contrast @ self._inverse @ (self._design.T @ self._design), contrast, atol=1e-6)

    @cached_property
    def _adjusted(self) -> np.ndarray:
        """Ratings without the listener's and the sentence's part of the additive model listener + sentence + item, by least squares."""
        parts = self._inverse @ (self._design.T @ self.value)
        both = sum(self.shape)
        return self.value - self._design[:, :both] @ parts[:both]

    def _estimate(self, value: np.ndarray, weight: np.ndarray, n: int) -> Estimate:
        """Sum of weight * value; positive weights sum to 1, negative ones to 0 or -1."""
        mean = float((weight * value).sum())
        if min(self.shape) < FEWEST:
            return Estimate(mean, math.nan, math.nan, n)
        both = self._recomputed(value, weight, *self._drawn)
        off, spread = both[np.isfinite(both)] - mean, self._spread(value, weight)
        if not len(off) or min(off.std(), spread) < 1e-9:
            return Estimate(mean, math.nan, math.nan, n)
        low, high = np.percentile(off, [2.5, 97.5]) * _stretch(min(self.shape)) * spread / off.std()
        return Estimate(mean, mean + float(low), mean + float(high), n)

    def _recomputed(self, value: np.ndarray, weight: np.ndarray, by_listener: np.ndarray, by_sentence: np.ndarray) -> np.ndarray:
        """(DRAWS,) the estimate under the draws; NaN where a draw leaves nothing of an item."""
        total = np.zeros(len(by_listener))
        for sign in (1, -1):
            part = np.where(sign * weight > 0, weight, 0.0)
            if part.any():
                total = total + sign * self._drawn_sum(part * value, by_listener, by_sentence) / self._drawn_sum(
                    part, by_listener, by_sentence
                )
        return total

    def _drawn_sum(self, amounts: np.ndarray, by_listener: np.ndarray, by_sentence: np.ndarray) -> np.ndarray:
        grid = np.zeros(self.shape)
        np.add.at(grid, (self.listener, self.sentence), amounts)
        sums = ((by_listener @ grid) * by_sentence).sum(1)
        return np.where(sums == 0, np.nan, sums)

    def _spread(self, value: np.ndarray, weight: np.ndarray) -> float:
        """Standard error, clustered both ways."""
        influence = np.zeros(len(value))
        for sign in (1, -1):
            part = np.where(sign * weight > 0, weight, 0.0)
            if part.any():
                influence += part * (value - (part * value).sum() / part.sum())
        by_listener, by_sentence = (np.bincount(index, influence) for index in (self.listener, self.sentence))
        first, second = (float((sums**2).sum() * len(sums) / (len(sums) - 1)) for sums in (by_listener, by_sentence))
        cells = float((influence**2).sum())
        return math.sqrt(max(first + second - cells, first, second))


def _stretch(clusters: int) -> float:
    """97.5 % quantile of Student's t with `clusters` - 1 degrees of freedom, over the normal's."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(clusters - 1, 0.975) / ndtri(0.975))
