"""The study's tables as text: CSV, LaTeX, Markdown, and the terminal's."""

import csv
import html
import io
import math
import textwrap
from collections.abc import Sequence

from ttsadapt.reports.compare import Cell, Column, Group, Preservation, change_table, main_table, reading
from ttsadapt.reports.numbers import Estimate, count, percent, seconds
from ttsadapt.reports.systems import System, Systems
from ttsadapt.text_table import aligned

NOTE = "95\u00a0% intervals: bootstrap over texts. Gain and forgetting: paired by utterance against the untuned model."
ROLES = {"ceiling": "ceiling", "vocoder": "vocoder's ceiling", "floor": "floor", "adapted": ""}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "\u00a0": "~", "≈": r"$\approx$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "−": "$-$", "–": "--", "·": r"$\cdot$", "±": r"$\pm$",
}  # fmt: skip
CSV_COLUMNS = (
    "system", "kind", "backbone", "strategies", "seeds", "quantity", "set", "metric", "mean", "low", "high", "n", "seed_sd",
    "unit", "better", "model", "version", "trainable_parameters", "trainable_share", "train_seconds", "steps",
)  # fmt: skip


def to_csv(systems: Systems) -> str:
    """One row a system x quantity x set x metric, full precision; `quantity` is value, gain or forgetting."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    main, changes = main_table(systems), change_table(systems)
    for quantity, rows, column in [
        *(("value", main.rows, c) for c in main.columns),
        *((g.key, changes.rows, c) for g in changes.groups for c in g.columns),
    ]:
        for system, cell in zip(rows, column.cells):
            if cell.estimate:
                writer.writerow(_csv_row(quantity, system, column, cell.estimate))
    return stream.getvalue()


def _csv_row(quantity: str, system: System, column: Column, estimate: Estimate) -> dict[str, object]:
    metric = column.metric
    numbers = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in estimate._asdict().items()}
    costs = {k: system.cost(k) for k in ("trainable_parameters", "trainable_share", "train_seconds", "steps")}
    spread = system.spread(column.set, metric.name) if quantity == "value" else None
    return numbers | {
        "system": system.label,
        "kind": system.kind,
        "backbone": system.backbone,
        "strategies": "+".join(system.strategies),
        "seeds": len(system.runs) if system.adapted else "",
        "quantity": quantity,
        "set": column.set,
        "metric": metric.name,
        "seed_sd": "" if spread is None else spread,
        "unit": metric.unit,
        "better": metric.better,
        "model": "; ".join(m for m, _ in metric.judges),
        "version": "; ".join(v for _, v in metric.judges),
        **{k: "" if v is None else v for k, v in costs.items()},
    }


def to_latex(systems: Systems) -> str:
    """One booktabs table a set, intervals below the means; needs \\usepackage{booktabs,graphicx}."""
    table = main_table(systems)
    blocks = [_latex_table(table.rows, group, systems.study.name) for group in table.groups]
    changes = change_table(systems)
    blocks += [_latex_table(changes.rows, group, systems.study.name) for group in changes.groups]
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(blocks)


def _latex_table(rows: Sequence[System], group: Group, study: str) -> str:
    heads = [f"{c.metric.label} {c.metric.arrow}" + (f" ({c.metric.unit})" if c.metric.unit else "") for c in group.columns]
    costs = group.key in ("target", "gain")
    extra = ["Trainable", "Train s"] if costs else []
    best = " Best adapted value in bold." if any(c.best for column in group.columns for c in column.cells) else ""
    lines = [
        r"\begin{table}[t]", r"\centering",
        rf"\caption{{{latex(study)}: {latex(group.title)}. {latex(NOTE)}{best}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{l{'c' * len(heads)}{'r' * len(extra)}}}", r"\toprule",
        " & ".join(map(latex, ["System", *heads, *extra])) + r" \\", r"\midrule",
    ]  # fmt: skip
    for i, row in enumerate(rows):
        if i and row.adapted and not rows[i - 1].adapted:
            lines.append(r"\midrule")
        cells = [column.cells[i] for column in group.columns]
        means = [rf"\textbf{{{latex(c.text)}}}" if c.best else latex(c.text) for c in cells]
        spent = [latex(percent(row.cost("trainable_share"))), latex(seconds(row.cost("train_seconds")))] if costs else []
        lines.append(" & ".join([latex(row.label), *means, *spent]) + r" \\")
        small = [rf"{{\scriptsize {latex(' '.join(filter(None, (c.interval, c.spread))))}}}" for c in cells]
        lines.append(" & ".join(["", *small, *[""] * len(extra)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
    return "\n".join(lines)


def latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


def to_markdown(systems: Systems, preservation: Preservation, facts: Sequence[str]) -> str:
    """report.md: the reading, every table, `facts` (failed runs and the like)."""
    main, changes = main_table(systems), change_table(systems)
    parts = [f"# {markdown(systems.study.name)}", *map(markdown, reading(systems)), f"*{NOTE}*"]
    for group in main.groups:
        parts += [f"## {markdown(group.title)}", _markdown_table(main.rows, group, group.key == main.groups[0].key)]
    for group in changes.groups:
        parts += [f"## {markdown(group.title)}", _markdown_table(changes.rows, group, False)]
    if preservation.pairs:
        parts.append("## Preservation, with the same way of training")
        for group in preservation.groups:
            labels = [f"{kept.label} against {plain.label}" for plain, kept in preservation.pairs]
            parts += [f"### {markdown(group.title)}", _grid("comparison", labels, group, [])]
    parts += [*(f"- {markdown(fact)}" for fact in facts)]
    best = "**bold**: best adapted value. " if main.ranked else ""
    parts.append(f"{best}▲ better, ▼ worse: the interval excludes 0.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[System], group: Group, costs: bool) -> str:
    labels = [f"{s.label} ({ROLES[s.kind]})" if ROLES[s.kind] else s.label for s in rows]
    trained = [f"{count(s.cost('trainable_parameters'))} ({percent(s.cost('trainable_share'))})" for s in rows]
    spent = [
        ("seeds", [str(len(s.runs)) if s.adapted else "–" for s in rows]),
        ("trainable", [text if s.adapted else "–" for s, text in zip(rows, trained)]),
        ("train s", [seconds(s.cost("train_seconds")) for s in rows]),
    ]
    return _grid("system", labels, group, spent if costs else [])


def _grid(corner: str, labels: Sequence[str], group: Group, extra: Sequence[tuple[str, Sequence[str]]]) -> str:
    heads = [corner, *(f"{c.metric.label} {c.metric.arrow} {c.metric.unit}".strip() for c in group.columns), *(n for n, _ in extra)]
    lines = [_pipes(heads), "|---|" + "---:|" * (len(heads) - 1)]
    for i, label in enumerate(labels):
        cells = [_markdown_cell(column.cells[i]) for column in group.columns]
        lines.append(_pipes([markdown(label), *cells, *(values[i] for _, values in extra)], escaped=True))
    counted = [str(max((c.estimate.n for c in column.cells if c.estimate), default=0)) for column in group.columns]
    return "\n".join([*lines, _pipes(["n", *counted, *("–" for _ in extra)])])


def _pipes(cells: Sequence[str], escaped: bool = False) -> str:
    return "| " + " | ".join(cells if escaped else map(markdown, cells)) + " |"


def _markdown_cell(cell: Cell) -> str:
    mean = f"**{cell.text}**" if cell.best else cell.text
    mark = {1: " ▲", -1: " ▼", 0: ""}[cell.mark]
    return " ".join(filter(None, [mean + mark, markdown(cell.interval), cell.spread]))


def markdown(text: str) -> str:
    """HTML and the characters that Markdown reads as marks, escaped."""
    escaped = html.escape(text.replace("\n", " "), quote=False)
    return "".join("\\" + c if c in "|*_`[]\\" else c for c in escaped)


def to_console(systems: Systems, width: int = 120) -> str:
    """A block a set: mean ± half of the interval; metrics that do not fit into `width` are named below."""
    table = main_table(systems)
    best = "; * best adapted value" if table.ranked else ""
    lines = [f"{systems.study.name}: mean ± half of the 95 % interval{best}"]
    for group in table.groups:
        lines += ["", *_console_block(table.rows, group, width)]
    sentences = [line for sentence in reading(systems) for line in textwrap.wrap(sentence, width)]
    failed = [f"{r.status}: {r.name} ({r.id}) {r.error}".rstrip()[:width] for r in systems.study.unfinished]
    return "\n".join([*lines, "", *sentences, *failed])


def _console_block(rows: Sequence[System], group: Group, width: int) -> list[str]:
    columns: list[list[str]] = [["", *_shortened([s.label for s in rows], 30)]]
    columns[0][0] = group.key
    columns.append(["train s", *(seconds(s.cost("train_seconds")) for s in rows)])
    columns.append(["trained", *(percent(s.cost("trainable_share")) for s in rows)])
    left_out = []
    for column in group.columns:
        cells = [_console_cell(c, column.digits) for c in column.cells]
        candidate = [f"{column.metric.label} {column.metric.arrow}", *cells]
        if sum(max(map(len, c)) + 2 for c in [*columns, candidate]) - 2 > width:
            left_out.append(column.metric.label)
        else:
            columns.append(candidate)
    head, *rows_below = zip(*columns)
    lines = aligned([head, ["─" * max(map(len, c)) for c in columns], *rows_below])
    more = textwrap.wrap(f"(more in the report: {', '.join(left_out)})", width) if left_out else []
    return [*lines, *more]


def _console_cell(cell: Cell, digits: int) -> str:
    estimate = cell.estimate
    if estimate is None:
        return "–"
    half = "" if math.isnan(estimate.half) else f" ±{estimate.half:.{digits}f}"
    return f"{'*' if cell.best else ''}{cell.text}{half}"


def _shortened(labels: Sequence[str], width: int) -> list[str]:
    """Of `width` characters, or of as many as tell them apart."""
    for most in range(width, max(map(len, labels), default=width) + 1):
        cut = [text if len(text) <= most else text[: most - 1] + "…" for text in labels]
        if len(set(cut)) == len(set(labels)):
            return cut
    return list(labels)
