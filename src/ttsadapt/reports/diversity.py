"""Does the diversity of what was learnt from tell what was gained? Systems of a study whose data were looked at, one point each.

`ttsadapt analyze analysis=diversity` with a run's overrides leaves diversity.json in the run's folder; without any there is no such part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttsadapt.files import read_json
from ttsadapt.reports.compare import ordered
from ttsadapt.reports.numbers import Estimate, bounds, fixed
from ttsadapt.reports.plots import SERIES, STYLE
from ttsadapt.reports.study import MetricInfo
from ttsadapt.reports.systems import Systems
from ttsadapt.reports.tables import markdown

FIGURES = {
    "energy_sd": "energy s.d., dB",
    "dnsmos_sd": "DNS-MOS s.d.",
    "snr": "WADA-SNR, dB",
    "f0_sd": "F0 s.d., semitones",
}
"""what is related to gains: figure of diversity.json -> axis"""
MOST_METRICS = 4
FEWEST, FEW = 4, 20
"""points below which nothing is said, and below which it is said that they are few"""


@dataclass(frozen=True)
class Point:
    """A system: how diverse the recordings were that it learnt, and what it gained on the target, positive = better.

    Seeds are no points of their own: they learn from the same recordings, and would make an interval narrow for nothing.
    """

    label: str
    figures: Mapping[str, float | None]
    gain: Mapping[str, Estimate]


@dataclass(frozen=True)
class Relation:
    """Pearson's correlation over points, with its 95 % interval (Fisher's z); NaN where one of both does not vary."""

    metric: MetricInfo
    figure: str
    correlation: Estimate

    @property
    def said(self) -> str:
        e = self.correlation
        return f"{fixed(e.mean, 2, True)} {bounds(e, 2, True)}".strip() if np.isfinite(e.mean) else "–"


@dataclass(frozen=True)
class Diversity:
    points: list[Point]
    relations: list[Relation]
    note: str = ""

    @property
    def names(self) -> list[str]:
        """Figures that are related to something."""
        return [name for name in FIGURES if any(r.figure == name for r in self.relations)]

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(r.metric.name for r in self.relations))

    def of(self, metric: str, figure: str) -> Relation | None:
        return next((r for r in self.relations if (r.metric.name, r.figure) == (metric, figure)), None)

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """(metric, correlation with each of `names`)"""
        labels = {r.metric.name: r.metric.label for r in self.relations}
        cells = {m: [self.of(m, name) for name in self.names] for m in labels}
        return [(labels[m], [r.said if r else "–" for r in row]) for m, row in cells.items()]


def diversity(systems: Systems) -> Diversity:
    """Empty when fewer than FEWEST systems have both a gain and a diversity.json."""
    points = list(_points(systems))
    if len(points) < FEWEST:
        return Diversity([], [])
    metrics = [m for m in ordered(systems.study.metrics) if sum(m.name in p.gain for p in points) >= FEWEST][:MOST_METRICS]
    relations = [r for m in metrics for f in FIGURES if (r := _relation(m, f, points)) is not None]
    few = "" if len(points) >= FEW else ": so few that an interval is wide"
    note = (
        f"{len(points)} points{few}. By luck alone one correlation in twenty excludes 0; here are {len(relations)}. "
        "Runs of one study share their base and test sentences, so they are no independent sample."
    )
    return Diversity(points, relations, note)


def _points(systems: Systems) -> Iterator[Point]:
    for system in systems.adapted:
        file = next((f for run in system.runs if (f := run.folder / "diversity.json").is_file()), None)
        if file is None:
            continue
        gain = {name: e for name, metric in systems.study.metrics.items() if (e := systems.change("gain", metric, system)) is not None}
        if gain:
            yield Point(system.label, _figures(file), gain)


def _figures(file: Path) -> dict[str, float | None]:
    return dict((read_json(file).get("all") or {}).get("figures") or {})


def _relation(metric: MetricInfo, figure: str, points: Sequence[Point]) -> Relation | None:
    """None for fewer than FEWEST points that have both."""
    from scipy.stats import pearsonr

    x, y = _both(metric, figure, points)
    if len(x) < FEWEST:
        return None
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Relation(metric, figure, Estimate(np.nan, np.nan, np.nan, len(x)))
    found = pearsonr(x, y)
    low, high = found.confidence_interval(0.95)
    return Relation(metric, figure, Estimate(float(found.statistic), float(low), float(high), len(x)))


def _both(metric: MetricInfo, figure: str, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    known = [(p.figures[figure], p.gain[metric.name].mean) for p in points if p.figures.get(figure) is not None and metric.name in p.gain]
    return np.array([x for x, _ in known], float), np.array([y for _, y in known], float)


def drawn(found: Diversity) -> Figure | None:
    """A panel for each metric and figure; points bear the numbers of the list, bars are 95 % intervals of the gain."""
    if not found.relations:
        return None
    names, metrics = found.names, found.metrics
    with rc_context(STYLE):
        figure = Figure(figsize=(2.7 * len(names) + 0.4, 2.3 * len(metrics) + 0.2), layout="constrained")
        axes = figure.subplots(len(metrics), len(names), squeeze=False)
        for row, metric in zip(axes, metrics):
            for axis, name in zip(row, names):
                relation = found.of(metric, name)
                if relation is None:
                    axis.remove()
                else:
                    _panel(axis, relation, found.points)
    return figure


def _panel(axis: Axes, relation: Relation, points: Sequence[Point]) -> None:
    name = relation.metric.name
    for number, point in enumerate(points, 1):
        x, gain = point.figures.get(relation.figure), point.gain.get(name)
        if x is None or gain is None:
            continue
        bars = [[np.nan_to_num(gain.mean - gain.low)], [np.nan_to_num(gain.high - gain.mean)]]
        axis.errorbar(x, gain.mean, yerr=bars, fmt="o", color=SERIES[0], ms=4, elinewidth=0.8)
        axis.annotate(str(number), (x, gain.mean), (4, 3), textcoords="offset points", fontsize=6.6)
    unit = f" ({relation.metric.unit})" if relation.metric.unit else ""
    axis.set_title(f"{relation.metric.label}: r = {relation.said}", fontsize=7.5)
    axis.set_xlabel(FIGURES[relation.figure])
    axis.set_ylabel(f"gain{unit} → better", fontsize=7)
    axis.margins(0.15)


def to_markdown(found: Diversity) -> str:
    """Correlations and points; empty without any."""
    if not found.relations:
        return ""
    heads = ["gain, correlated with", *(markdown(FIGURES[name]) for name in found.names)]
    rows = [[markdown(label), *cells] for label, cells in found.rows]
    lines = [" | ".join(line) for line in (heads, ["---", *("---:" for _ in found.names)], *rows)]
    points = [f"{number}. {markdown(point.label)}" for number, point in enumerate(found.points, 1)]
    table = "\n".join(f"| {line} |" for line in lines)
    return "\n".join(["", "## Diversity of the data against what was gained", "", found.note, "", table, "", *points, ""])
