"""Loss against quality during training: where each was best, and whether choosing by the loss would have chosen well.

For LLM-based TTS both losses were seen to fall on while perceived quality fell too (Purwar and Choudhary 2026, arXiv 2603.10904):
a checkpoint is then better chosen by what is heard.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttsadapt.reports.numbers import fixed
from ttsadapt.reports.plots import MUTED, SERIES, STYLE, grid, legend
from ttsadapt.reports.study import MetricInfo, Run
from ttsadapt.reports.systems import Systems

MOST_RUNS = 12
Points = list[tuple[int, float]]
"""(optimiser steps made, value)"""


@dataclass
class Course:
    """One set's validation over a run."""

    label: str
    """of the run"""
    set: str
    loss: Points
    metrics: dict[str, tuple[MetricInfo, Points]]

    @property
    def lowest(self) -> tuple[int, float]:
        return min(self.loss, key=lambda p: p[1])

    def best(self, metric: str) -> tuple[int, float] | None:
        """The first step at which the metric was best; None when it has no value, or neither low nor high is better."""
        info, points = self.metrics[metric]
        sign = {"lower": 1, "higher": -1}.get(info.better)
        return min(points, key=lambda p: sign * p[1]) if sign and points else None


def courses(systems: Systems) -> list[Course]:
    """Of every run that was listened to, a course for each set."""
    return [course for s in systems.adapted for run in s.runs for course in _of(run, _label(s.label, run, len(s.runs)))]


def _label(system: str, run: Run, seeds: int) -> str:
    return f"{system}, seed {run.seed}" if seeds > 1 else system


def _of(run: Run, label: str) -> Iterator[Course]:
    heard: dict[str, Any] = run.summary.get("validation") or {}
    for where in heard.get("sentences") or {}:
        loss = _points(run, f"valid/{where}/loss")
        metrics = {
            name: (MetricInfo(name, about.get("unit") or "", about.get("better") or ""), _points(run, f"valid/{where}/{name}"))
            for name, about in (heard.get("metrics") or {}).items()
        }
        if loss and any(points for _, points in metrics.values()):
            yield Course(label, where, loss, metrics)


def _points(run: Run, name: str) -> Points:
    """metrics.csv numbers optimiser steps from 0."""
    return [(step + 1, value) for step, value in run.curves.get(name, []) if math.isfinite(value)]


def words(found: Sequence[Course]) -> list[str]:
    """A sentence for each course and metric, with the figures."""
    return [said for course in found for name in course.metrics if (said := _sentence(course, name))]


def _sentence(course: Course, name: str) -> str | None:
    info, points = course.metrics[name]
    if (best := course.best(name)) is None:
        return None
    step, loss = course.lowest
    unit = f" {info.unit}" if info.unit else ""
    start = f"{course.label} on {course.set}: loss was lowest at step {step} ({fixed(loss, 3)}), {info.label} was best"
    if best[0] == step:
        return f"{start} there, too ({fixed(best[1], 2)}{unit})."
    there = dict(points).get(step)
    beside = f"; where the loss was lowest it was {fixed(there, 2)}{unit}" if there is not None else ""
    return f"{start} at step {best[0]} ({fixed(best[1], 2)}{unit}){beside}."


def draw(found: Sequence[Course]) -> Figure | None:
    """A row for each run and set: its loss, then each metric, over steps; the best of each is marked, the loss's in every panel."""
    shown = list(found)[:MOST_RUNS]
    if not shown:
        return None
    names = list(dict.fromkeys(name for course in shown for name in course.metrics))
    columns = 1 + len(names)
    with rc_context(STYLE):
        figure, axes = grid(columns * len(shown), (2.5, 1.6), columns, top=0.6)
        for row, course in enumerate(shown):
            mine = axes[row * columns : (row + 1) * columns]
            _panel(mine[0], course, f"{course.label}, {course.set}: loss ↓", course.loss, course.lowest)
            for axis, name in zip(mine[1:], names):
                if name in course.metrics:
                    info, points = course.metrics[name]
                    unit = f" ({info.unit})" if info.unit else ""
                    _panel(axis, course, f"{info.label} {info.arrow}{unit}", points, course.best(name))
                else:
                    axis.set_axis_off()
        legend(figure, *axes[0].get_legend_handles_labels())
    return figure


def _panel(axis: Axes, course: Course, title: str, points: Points, best: tuple[int, float] | None) -> None:
    axis.axvline(course.lowest[0], color=MUTED, lw=0.9, ls="--", label="loss lowest")
    axis.plot([s for s, _ in points], [v for _, v in points], "-o", color=SERIES[0], lw=1.1, ms=3)
    if best is not None:
        axis.plot(*best, "*", color=SERIES[1], ms=10, ls="none", label="best", zorder=4)
    axis.set_title(title)
    axis.set_xlabel("step")
