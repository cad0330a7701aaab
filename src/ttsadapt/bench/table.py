"""A benchmark's figures as tables: every side, then every ratio with its spread and the limit beside it."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from ttsadapt.bench.base import Case, Comparison, Quantity, Rounds, memory, speed, wall_speed

_TITLES = {"speed": "{}/CPU s", "wall_speed": "{}/s", "cost": "CPU s/{}", "memory": "peak GiB"}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    return median(values), min(values), max(values)


def ratios(done: Rounds, comparison: Comparison) -> list[float]:
    """One for each round."""
    quantity = comparison.quantity
    return [quantity(each[comparison.side]) / quantity(each[comparison.over]) for each in done]


def verdicts(case: Case, done: Rounds) -> list[dict[str, Any]]:
    """For bench.json: every comparison with the median and the range of its ratios, its limit and whether that holds."""
    found = []
    for comparison in case.comparisons():
        middle, low, high = spread(ratios(done, comparison))
        if math.isnan(middle):  # memory, when it was not asked for
            continue
        found.append({
            "side": comparison.side, "over": comparison.over, "quantity": title(comparison.quantity, case.unit), "median": middle,
            "low": low, "high": high, "limit": comparison.limit, "holds": comparison.holds(middle),
        })  # fmt: skip
    return found


def markdown(case: Case, done: Rounds) -> str:
    """Both tables; columns are padded, so that they also read well in a terminal."""
    wanted: list[Quantity] = [wall_speed, speed, *[memory] * any(f.memory is not None for f in done[0].values())]
    sides = [["side", *(title(q, case.unit) for q in wanted)]]
    sides += [[name, *(f"{median(q(each[name]) for each in done):.4g}" for q in wanted)] for name in done[0]]
    rows = [["ratio", "of", "median", "range", "limit", ""]]
    for v in verdicts(case, done):
        mark = {None: "", True: "holds", False: "MISSED"}[v["holds"]]
        span = f"{v['low']:.3f} to {v['high']:.3f}"
        rows.append([f"{v['side']} / {v['over']}", v["quantity"], f"{v['median']:.3f}", span, v["limit"], mark])
    return f"{_table(sides)}\n\n{_table(rows)}\n"


def title(quantity: Quantity, unit: str) -> str:
    """The name of a quantity, as a column has it; one of a case's own goes by its function's name."""
    name = getattr(quantity, "__name__", str(quantity))
    return _TITLES.get(name, name).format(unit)


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
