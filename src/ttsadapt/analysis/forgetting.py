"""Figures of a sequence from the matrix R: what was learnt, what was forgotten, what carried over.

R[i, j] is the score on task j after stage i, turned so that higher is better; row 0 is the untuned model, T the last stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttsadapt.metrics.intervals import Interval, grouped

DEFINITIONS = {
    "average": "mean over tasks j of R[T, j]; higher is better",
    "learnt": "mean over tasks j of R[j, j] - R[0, j], what a task gained from the untuned model to its own stage; higher is better",
    "forgetting": "mean over tasks j < T of (max over stages 1 <= i < T of R[i, j]) - R[T, j] (Chaudhry et al. 2018, forgetting measure); "
    "positive = forgotten",
    "forgetting_since_learnt": "mean over tasks j < T of R[j, j] - R[T, j], without the maximum; positive = forgotten",
    "backward_transfer": "mean over tasks j < T of R[T, j] - R[j, j] (Lopez-Paz and Ranzato 2017, eq. 3); negative = forgotten",
    "forward_transfer": "mean over tasks j > 1 of R[j - 1, j] - R[0, j] (ibid., eq. 4, against the untuned model where they have "
    "random weights); higher is better",
}
"""name -> formula and sign"""


def figures(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """(..., T + 1, T) -> {name of `DEFINITIONS`: (...)}; NaN where a score that it needs is unknown, or with a single stage."""
    stages = matrix.shape[-1]
    if matrix.shape[-2] != stages + 1:
        raise ValueError(f"R is {matrix.shape[-2:]}: {stages} tasks want {stages + 1} rows, the first that of the untuned model")
    tasks = np.arange(stages)
    own, untuned, last = matrix[..., tasks + 1, tasks], matrix[..., 0, :], matrix[..., -1, :]
    before = matrix[..., tasks, tasks]  # R[j - 1, j]
    undefined = np.full(matrix.shape[:-2], np.nan)
    several = stages > 1
    since = (own - last)[..., :-1].mean(-1) if several else undefined
    best = matrix[..., 1:-1, :-1].max(-2) if several else undefined
    return {
        "average": last.mean(-1),
        "learnt": (own - untuned).mean(-1),
        "forgetting": (best - last[..., :-1]).mean(-1) if several else undefined,
        "forgetting_since_learnt": since,
        "backward_transfer": -since,
        "forward_transfer": (before - untuned)[..., 1:].mean(-1) if several else undefined,
    }


@dataclass
class Scores:
    """Of one task: what every utterance scored after every stage."""

    values: np.ndarray
    """(rows, N), higher is better; NaN where a row is unknown"""
    weights: np.ndarray
    """(N,)"""
    groups: Sequence[str]
    """N texts, drawn as wholes"""

    def paired(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, G) means and (G,) weights of the texts whose score is known in every row that has any."""
        rows = ~np.isnan(self.values).all(1)
        known = np.isfinite(self.values[rows]).all(0) & (self.weights > 0)
        groups = np.asarray(self.groups)[known]
        both = [grouped(row[known], self.weights[known], groups) for row in self.values]
        return np.stack([value for value, _ in both]), both[0][1]

    def means(self) -> np.ndarray:
        """(rows,)"""
        values, weights = self.paired()
        return values @ weights / weights.sum() if len(weights) else np.full(len(self.values), np.nan)

    def drawn(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """(draws, rows) means of texts drawn with replacement, the same for every row: the rows stay paired."""
        values, weights = self.paired()
        picked = rng.integers(0, len(weights), (draws, len(weights)))
        weight = weights[picked]
        return np.stack([(row[picked] * weight).sum(1) / weight.sum(1) for row in values], 1)


def with_intervals(tasks: Sequence[Scores], draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Every figure with the percentile bootstrap's 95 % interval (BCa needs a mean; a maximum is none). `n` counts utterances.

    Utterances are what is drawn, task by task, so an interval speaks of other test sentences, not of other training runs.
    """
    n = sum(int(np.isfinite(task.values[-1]).sum()) for task in tasks)
    found = figures(np.stack([task.means() for task in tasks], 1))
    if any(len(task.paired()[1]) < 2 for task in tasks):
        return {name: Interval(float(value), np.nan, np.nan, n) for name, value in found.items()}
    rng = np.random.default_rng(seed)
    drawn = figures(np.stack([task.drawn(draws, rng) for task in tasks], -1))
    low, high = ({name: float(np.percentile(values, p)) for name, values in drawn.items()} for p in (2.5, 97.5))
    return {name: Interval(float(value), low[name], high[name], n) for name, value in found.items()}


def plain(found: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    """For json: unknown numbers are None."""
    return {
        name: {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in value._asdict().items()} for name, value in found.items()
    }
