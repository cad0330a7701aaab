"""How far automatic metrics order clips as listeners do."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ttsadapt.listening.key import Key
from ttsadapt.reports.study import MetricInfo
from ttsadapt.reports.systems import Systems

DRAWS = 2000


def correlations(systems: Systems, key: Key, rated: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    """Spearman's rho between the mean rating of a clip and its automatic figure, each metric turned so that more is better.

    `rated`: {(item, "<set>/<id>"): mean over listeners}. Recordings are left out: a metric that compares with them knows them. 95 %
    interval: bootstrap over sentences, all clips of one drawn together.
    """
    entries = []
    for metric in systems.study.metrics.values():
        pairs = _pairs(systems, key, rated, metric)
        if len({sentence for sentence, _, _ in pairs}) < 3 or min(len({p[k] for p in pairs}) for k in (1, 2)) < 2:
            continue
        rho, low, high = spearman([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs])
        entries.append({"metric": metric.name, "label": metric.label, "rho": rho, "low": low, "high": high, "n": len(pairs)})
    return sorted(entries, key=lambda e: -e["rho"])


def _pairs(systems: Systems, key: Key, rated: Mapping[tuple[str, str], float], metric: MetricInfo) -> list[tuple[str, float, float]]:
    """(sentence, rating, figure): of a comparison, the figure is the difference of its two systems'."""
    labels = {s.label: s for s in systems}
    pairs = []
    for (item, sentence), rating in rated.items():
        set_, utterance = sentence.split("/", 1)
        signs = key.compared.get(item, {})
        if not signs or any(label not in labels or labels[label].kind == "ceiling" for label in signs):
            continue
        known = [sign * v for label, sign in signs.items() if (v := labels[label].goodness(set_, metric.name).get(utterance)) is not None]
        if len(known) == len(signs):
            pairs.append((sentence, rating, sum(known)))
    return pairs


def spearman(groups: list[str], a: list[float], b: list[float], seed: int = 0) -> tuple[float, float | None, float | None]:
    """(rho, low, high): ties share their mean rank; groups are drawn as wholes."""
    _, index = np.unique(groups, return_inverse=True)
    count = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
    times = np.vstack([np.ones(count), drawn])[:, index]  # (1 + DRAWS, clips) how often each is drawn; once, in the first row
    first, second = (_ranks(np.asarray(values, float), times) for values in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (times * first * second).sum(1) / np.sqrt((times * first**2).sum(1) * (times * second**2).sum(1))
    known = rho[1:][np.isfinite(rho[1:])]
    if not len(known):
        return float(rho[0]), None, None
    low, high = np.percentile(known, [2.5, 97.5])
    if high - low < 1e-9:  # so few that every draw orders them alike
        return float(rho[0]), None, None
    return float(rho[0]), float(low), float(high)


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(clips,), (draws, clips) -> (draws, clips) mean ranks among what was drawn, less their own mean."""
    order, place = np.unique(values, return_inverse=True)
    each = times @ np.eye(len(order))[place]  # (draws, distinct values)
    return (each.cumsum(1) - each / 2)[:, place] - times.sum(1, keepdims=True) / 2
