"""The study's tables as data: headings, cells, marks. How they look is decided elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ttsadapt.metrics.intervals import FEW, too_few
from ttsadapt.reports.numbers import Estimate, bounds, decimals, fixed
from ttsadapt.reports.study import MetricInfo
from ttsadapt.reports.systems import System, Systems

TITLES = {
    "target": "Target (what is learnt)",
    "source": "Source (what must not be forgotten)",
    "unseen": "Unseen (held-out voices)",
    "ood": "OOD (other texts and languages)",
}
LEADING = ("mcd", "per", "speaker_similarity", "speaker", "f0")
"""metrics that lead a table, a plot or a sentence where the study has them"""


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    estimate: Estimate | None
    text: str
    interval: str = ""
    spread: str = ""
    best: bool = False
    mark: int = 0
    """1: better, -1: worse, with an interval that excludes 0"""


@dataclass
class Column:
    """One metric on one set."""

    set: str
    metric: MetricInfo
    cells: list[Cell]
    digits: int

    @property
    def n(self) -> int:
        """Utterances behind its means."""
        return max((c.estimate.n for c in self.cells if c.estimate), default=0)


@dataclass
class Group:
    """Neighbouring columns under one heading."""

    key: str
    title: str
    columns: list[Column] = field(default_factory=list)

    @property
    def n(self) -> int:
        return max((c.n for c in self.columns), default=0)


@dataclass
class Table:
    """Rows by groups of columns; `rows[i]` belongs to `column.cells[i]`."""

    rows: list[System]
    groups: list[Group]

    @property
    def columns(self) -> list[Column]:
        return [c for g in self.groups for c in g.columns]

    @property
    def ranked(self) -> bool:
        """Whether a best one is marked anywhere."""
        return any(c.best for column in self.columns for c in column.cells)


def ordered(metrics: dict[str, MetricInfo]) -> list[MetricInfo]:
    """Leading metrics first, the others in the order in which they were scored."""

    def rank(name: str) -> int:
        return next((i for i, lead in enumerate(LEADING) if name == lead or name.startswith(lead + "_")), len(LEADING))

    return sorted(metrics.values(), key=lambda m: rank(m.name))


def main_table(systems: Systems) -> Table:
    metrics = ordered(systems.study.metrics)
    groups = [Group(s, TITLES.get(s, s)) for s in systems.study.sets]
    for group in groups:
        for metric in metrics:
            estimates = [s.estimate(group.key, metric.name) for s in systems]
            if any(estimates):
                group.columns.append(_values_column(systems, group.key, metric, estimates))
    return Table(list(systems), [g for g in groups if g.columns])


def _values_column(systems: Systems, set_: str, metric: MetricInfo, estimates: list[Estimate | None]) -> Column:
    digits = decimals(estimates)
    best = _best(systems, metric, estimates)
    spreads = [s.spread(set_, metric.name) for s in systems]
    cells = [
        Cell(
            estimate,
            fixed(estimate.mean, digits) if estimate else "–",
            bounds(estimate, digits) if estimate else "",
            f"±{fixed(spread, digits)} over {len(system.runs)} seeds" if spread is not None else "",
            i == best,
        )
        for i, (system, estimate, spread) in enumerate(zip(systems, estimates, spreads))
    ]
    return Column(set_, metric, cells, digits)


def _best(systems: Systems, metric: MetricInfo, estimates: list[Estimate | None]) -> int | None:
    """Index of the best adapted system, None of a single one; "near reference" means near the recordings' mean."""
    ceiling = next((e.mean for s, e in zip(systems, estimates) if s.kind == "ceiling" and e), None)
    badness: Callable[[float], float]
    if metric.better in ("lower", "higher"):
        sign = 1 if metric.better == "lower" else -1
        badness = lambda mean: sign * mean  # noqa: E731
    elif ceiling is not None:
        badness = lambda mean: abs(mean - ceiling)  # noqa: E731
    else:
        return None
    ranked = [(badness(e.mean), i) for i, (s, e) in enumerate(zip(systems, estimates)) if s.adapted and e]
    return min(ranked)[1] if len(ranked) > 1 else None


def change_table(systems: Systems) -> Table:
    """Gain on target and forgetting on source against the untuned model, paired by utterance."""
    groups = [
        Group("gain", "Gain on target (positive = better)"),
        Group("forgetting", "Forgetting on source (positive = worse)"),
    ]
    for group in groups:
        good = 1 if group.key == "gain" else -1
        for metric in ordered(systems.study.metrics):
            estimates = [systems.change(group.key, metric, s) for s in systems.adapted]
            if any(estimates):
                set_ = "target" if group.key == "gain" else "source"
                group.columns.append(_change_column(set_, metric, estimates, good))
    return Table(systems.adapted, [g for g in groups if g.columns])


def _change_column(set_: str, metric: MetricInfo, estimates: list[Estimate | None], good: int) -> Column:
    digits = decimals(estimates)
    cells = [Cell(e, fixed(e.mean, digits, True), bounds(e, digits, True), mark=good * e.sign) if e else Cell(None, "–") for e in estimates]
    return Column(set_, metric, cells, digits)


@dataclass
class Preservation:
    """What preservation changes at the same *how*; row i compares `pairs[i]` (without, with)."""

    pairs: list[tuple[System, System]]
    groups: list[Group]


def preservation_table(systems: Systems) -> Preservation:
    pairs = systems.preserved_pairs()
    groups = [
        Group("source", "Source: less forgotten by"),
        Group("target", "Target: the price (negative = learnt less)"),
    ]
    for group in groups:
        for metric in ordered(systems.study.metrics):
            estimates = [systems.improvement(metric, group.key, kept, plain) for plain, kept in pairs]
            if any(estimates):
                group.columns.append(_change_column(group.key, metric, estimates, 1))
    return Preservation(pairs, [g for g in groups if g.columns])


def reading(systems: Systems) -> list[str]:
    """The result in a few sentences, every word of which follows from the tables; by the leading metric that has the figures, and by
    others where these contradict it."""
    table = change_table(systems)
    groups = {g.key: g.columns for g in table.groups}
    said = [_gain_sentence(table.rows, groups["gain"])] if "gain" in groups else []
    said += [_forgetting_sentence(table.rows, groups["forgetting"])] if "forgetting" in groups else []
    fewest = min((g.n for g in table.groups), default=FEW)
    few = [too_few(fewest, "sentence") + "."] if fewest < FEW else []
    return said + _preservation_sentence(preservation_table(systems)) + few


def _amount(column: Column, estimate: Estimate) -> str:
    """ "2.31 dB [2.02, 2.60]"."""
    return " ".join(filter(None, [fixed(estimate.mean, column.digits), column.metric.unit, bounds(estimate, column.digits)]))


def _though(columns: list[Column], row: int) -> str:
    """What gets worse by other metrics while the leading one is praised."""
    worse = [c.metric.label for c in columns[1:] if c.cells[row].mark < 0]
    return f", though worse in {', '.join(worse)}" if worse else ""


def _gain_sentence(rows: list[System], columns: list[Column]) -> str:
    column = columns[0]
    estimate, system = max(((c.estimate, s) for c, s in zip(column.cells, rows) if c.estimate), key=lambda p: p[0].mean)
    label = column.metric.label
    if estimate.sign <= 0:
        return f"No run gains on the target beyond its 95\u00a0% interval in {label}."
    though = _though(columns, rows.index(system))
    most = " most" if _several(column) else ""
    return f"{system.label} gains{most} on the target: {label} better than the untuned model's by {_amount(column, estimate)}{though}."


def _forgetting_sentence(rows: list[System], columns: list[Column]) -> str:
    column = columns[0]
    known = [(c.estimate, s) for c, s in zip(column.cells, rows) if c.estimate]
    (least, kept), (most, lost) = (f(known, key=lambda p: p[0].mean) for f in (min, max))
    label = column.metric.label
    if most.sign <= 0:
        return f"No run forgets on the source beyond its 95\u00a0% interval in {label}."
    verdict = {1: "worse", 0: "no clear change", -1: "even better"}[least.sign]
    rest = f"; {lost.label} forgets most, {_amount(column, most)}" if lost is not kept else ""
    though, how = _though(columns, rows.index(kept)), " least" if _several(column) else ""
    return f"{kept.label} forgets{how} on the source: {label} {verdict}, {_amount(column, least)}{though}{rest}."


def _several(column: Column) -> bool:
    """Of one there is no best and no least."""
    return sum(c.estimate is not None for c in column.cells) > 1


def _preservation_sentence(table: Preservation) -> list[str]:
    column = next((g.columns[0] for g in table.groups if g.key == "source"), None)
    if column is None:
        return []
    known = [(c, pair) for c, pair in zip(column.cells, table.pairs) if c.estimate]
    helped = [(c, pair) for c, pair in known if c.mark > 0]
    label = column.metric.label
    if not helped:
        return [f"Trained alike, preservation does not lower forgetting in {label} beyond the intervals."]
    amounts = "; ".join(f"{kept.label} against {plain.label} {_amount(column, c.estimate)}" for c, (plain, kept) in helped if c.estimate)
    return [f"Trained alike, preservation lowers forgetting in {label} in {len(helped)} of {len(known)} comparisons: {amounts}."]
