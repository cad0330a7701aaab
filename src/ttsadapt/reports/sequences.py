"""What sequences of stages say: the matrix of every one as a heat map, and the figures of all side by side."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ttsadapt.files import read_json
from ttsadapt.reports.compare import ordered
from ttsadapt.reports.numbers import Estimate, bounds, decimals, fixed
from ttsadapt.reports.study import MetricInfo
from ttsadapt.reports.systems import Systems
from ttsadapt.reports.tables import markdown

TITLES = {
    "average": "Average",
    "learnt": "Learnt",
    "forgetting": "Forgetting",
    "forgetting_since_learnt": "Forgetting since learnt",
    "backward_transfer": "Backward transfer",
    "forward_transfer": "Forward transfer",
}
GOOD = {"forgetting": -1, "forgetting_since_learnt": -1, "lost": -1, "average": 0}
"""-1: a positive figure is bad; 0: neither is"""


@dataclass(frozen=True)
class Box:
    """One value: a cell of R, or a figure."""

    text: str
    interval: str = ""
    heat: int | None = None
    """0 (the worst of its column) to 100 (the best), over all sequences"""
    mark: int = 0
    """1: better, -1: worse, with an interval that excludes 0"""


@dataclass(frozen=True)
class Heat:
    """R of one sequence in one metric: a row a model, a column a test set."""

    label: str
    columns: list[str]
    learnt: int
    """how many of the columns, from the first, are what the stages learn; the others lie beside"""
    rows: list[tuple[str, list[Box]]]


@dataclass(frozen=True)
class Part:
    """All that is said in one metric."""

    metric: MetricInfo
    names: list[str]
    """titles of the figures"""
    figures: list[tuple[str, list[Box]]]
    heats: list[Heat]


@dataclass(frozen=True)
class Sequences:
    parts: list[Part]
    definitions: dict[str, str]


def sequences(systems: Systems) -> Sequences:
    """Of every finished sequence of the study; `parts` is empty when it has none."""
    found = list(_matrices(systems))
    metrics = [m for m in ordered(systems.study.metrics) if any(m.name in matrix["metrics"] for _, matrix in found)]
    said = found[0][1]["definitions"] if found else {}
    return Sequences([_part(metric, found) for metric in metrics], {TITLES.get(k, "Lost"): v for k, v in said.items()})


def _matrices(systems: Systems) -> Iterator[tuple[str, dict[str, Any]]]:
    for system in systems.adapted:
        for run in system.runs:
            if (file := run.folder / "matrix.json").is_file():
                yield f"{system.label}, seed {run.seed}" if len(system.runs) > 1 else system.label, read_json(file)


def _part(metric: MetricInfo, found: Sequence[tuple[str, dict[str, Any]]]) -> Part:
    mine = [(label, matrix, matrix["metrics"][metric.name]) for label, matrix in found if metric.name in matrix["metrics"]]
    beside = list(dict.fromkeys(name for _, matrix, _ in mine for name in matrix["beside"]))
    keys = [*TITLES, *(f"lost/{name}" for name in beside)]
    columns = [[_figure(said, key) for _, _, said in mine] for key in keys]
    boxes = [_figure_boxes(key, column) for key, column in zip(keys, columns)]
    figures = [(label, [column[i] for column in boxes]) for i, (label, _, _) in enumerate(mine)]
    names = [*TITLES.values(), *(f"Lost on {name}" for name in beside)]
    return Part(metric, names, figures, _heats(metric, mine))


def _figure(said: dict[str, Any], key: str) -> Estimate | None:
    kind, _, name = key.partition("/")
    return Estimate.read(said["lost"].get(name) if name else said["figures"].get(kind))


def _figure_boxes(key: str, column: Sequence[Estimate | None]) -> list[Box]:
    digits, good = decimals(column), GOOD.get(key.partition("/")[0], 1)
    return [Box(fixed(e.mean, digits, good != 0), bounds(e, digits, good != 0), None, good * e.sign) if e else Box("–") for e in column]


def _heats(metric: MetricInfo, mine: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[Heat]:
    """The same column of every sequence shares one scale, so that their colours can be compared."""
    ranges: dict[str, list[float]] = {}
    known: list[Estimate | None] = []
    for _, matrix, said in mine:
        for line in said["R"]:
            for name, cell in zip([*matrix["tasks"], *matrix["beside"]], line):
                known.append(e := Estimate.read(cell))
                ranges.setdefault(name, []).extend([e.mean] if e else [])
    digits = decimals(known)
    heats = []
    for label, matrix, said in mine:
        columns = [*matrix["tasks"], *matrix["beside"]]
        rows = [
            (after, [_cell(metric, Estimate.read(cell), ranges[name], digits) for name, cell in zip(columns, line)])
            for after, line in zip(matrix["rows"], said["R"])
        ]
        heats.append(Heat(label, columns, len(matrix["tasks"]), rows))
    return heats


def _cell(metric: MetricInfo, estimate: Estimate | None, others: Sequence[float], digits: int) -> Box:
    if estimate is None:
        return Box("–")
    low, high = min(others), max(others)
    share = (estimate.mean - low) / (high - low) if high > low else math.nan
    turned = {"higher": share, "lower": 1 - share}.get(metric.better, math.nan)
    return Box(fixed(estimate.mean, digits), bounds(estimate, digits), None if math.isnan(turned) else round(100 * turned))


def to_markdown(said: Sequences) -> str:
    """The figures and R of every metric; empty without a sequence."""
    lines: list[str] = []
    for part in said.parts:
        lines += [f"## Sequences: {markdown(part.metric.label)} {part.metric.arrow} {markdown(part.metric.unit)}".rstrip(), ""]
        lines += _rows(["sequence", *part.names], part.figures)
        for heat in part.heats:
            lines += [f"### {markdown(heat.label)}: R", "", *_rows(["after", *heat.columns], heat.rows)]
    lines += [f"- {name}: {markdown(text)}" for name, text in said.definitions.items()]
    return "\n".join(lines) + "\n" if lines else ""


def _rows(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Box]]]) -> list[str]:
    marks = {1: " ▲", -1: " ▼", 0: ""}
    table = [[markdown(label), *(f"{b.text}{marks[b.mark]} {b.interval}".rstrip() for b in boxes)] for label, boxes in rows]
    lines = [[markdown(h) for h in heads], ["---", *("---:" for _ in heads[1:])], *table]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
