"""Quality against settings of decoding: what decoding.csv of a run says, as figures, in words, and drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttsadapt.files import write_json
from ttsadapt.metrics.intervals import FEW, too_few
from ttsadapt.reports.decoded import RECORDINGS, Decoded, read
from ttsadapt.reports.numbers import Estimate, bounds, decimals, fixed
from ttsadapt.reports.plots import LINES, MUTED, SERIES, STYLE, grid, legend, save_png
from ttsadapt.reports.study import MetricInfo
from ttsadapt.reports.systems import Systems
from ttsadapt.reports.tables import markdown

MOST_LINES = 8
REFERENCES = ("the run's own", "recordings")
Lines = dict[str, list[tuple[float, Estimate]]]
"""{the other knobs: [(value of this one, what it gives)]}"""


def report(run: Path) -> list[str]:
    """Write decoding.json and, a picture for each set of sentences that has something to show, decoding.png; gives what is to be said."""
    decoded = read(run / "decoding.csv")
    write_json(run / "decoding.json", [summary(d) for d in decoded])
    lines = [line for d in decoded for line in words(d)]
    written = ["decoding.csv", "decoding.json"]
    for number, d in enumerate(decoded):
        if (figure := draw(d)) is not None:
            written.append("decoding.png" if number == 0 else f"decoding-{d.on}.png")
            save_png(figure, run / written[-1])
    return [*lines, f"written to {run}: {', '.join(written)}"]


@dataclass
class Swept:
    """What a run's settings are worth, for the page of its study."""

    label: str
    words: list[str]
    figures: list[Figure]


def of_study(systems: Systems) -> list[Swept]:
    """Of every run, the untuned one too, that has a decoding.csv."""
    found = []
    for system in (s for s in systems if s.kind in ("adapted", "floor")):
        for run in (r for r, prefix in system.sources if not prefix):
            if decoded := read(run.folder / "decoding.csv"):
                label = f"{system.label}, seed {run.seed}" if len(system.runs) > 1 and system.adapted else system.label
                figures = [figure for d in decoded if (figure := draw(d)) is not None]
                found.append(Swept(label, [line for d in decoded for line in words(d)], figures))
    return found


def to_markdown(sweeps: Sequence[Swept]) -> str:
    lines = [line for s in sweeps for line in (f"### {markdown(s.label)}", "", *(f"- {markdown(w)}" for w in s.words), "")]
    return "\n".join(["## Settings of decoding", "", *lines]) if lines else ""


def summary(d: Decoded) -> dict[str, Any]:
    """What decoding.json holds of one set of sentences."""

    def plain(estimate: Estimate | None) -> dict[str, Any] | None:
        kept = estimate._asdict() if estimate else None
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in kept.items()} if kept else None

    def entry(name: str) -> dict[str, Any]:
        scores = {m: plain(d.estimate(name, m)) for m in d.metrics}
        return {"setting": d.settings[name], "scores": scores, "change": {m: plain(d.change(name, m)) for m in d.metrics}}

    best = {m: entry(b) for m in d.metrics if (b := d.best(m))}
    one = {
        m: {"setting": e["setting"], "score": e["scores"][m], "change": e["change"][m], "left_out": d.left_out(m)} for m, e in best.items()
    }
    own = {m: {"default": plain(d.estimate(d.default, m)), "recordings": plain(d.estimate(RECORDINGS, m))} for m in best}
    about = {m: {"unit": i.unit, "better": i.better, "judges": [list(j) for j in i.judges]} for m, i in d.metrics.items()}
    return {
        "set": d.on, "seeds": d.seeds, "metrics": about, "default": d.settings.get(d.default),
        "settings": [entry(name) for name in d.settings], "best": {m: one[m] | own[m] for m in one},
    }  # fmt: skip


def words(d: Decoded) -> list[str]:
    """For every metric the best setting with its interval, the run's own beside it, and whether the difference is more than chance, which
    few texts do not say."""
    lines = []
    for info in d.metrics.values():
        name = d.best(info.name)
        best, own = (d.estimate(s, info.name) if s else None for s in (name, d.default))
        change = d.change(name, info.name) if name else None
        if name is None or best is None or own is None or change is None:
            continue
        digits, of = decimals([best, own]), f"best of {len(d.compared[info.name].values)}"
        said = f"{info.label} on {d.on}: best at {d.told(name)}, {_written(best, digits, info.unit)}"
        if name == d.default:
            lines.append(f"{said}, the run's own setting ({of}){_missing(d, info.name)}")
            continue
        texts = d.texts_of(info.name)
        how = too_few(texts) if texts < FEW else "the interval excludes 0" if change.sign > 0 else "within chance"
        own_said = f"the run's own ({d.told(d.default)}) {_written(own, digits, info.unit)}"
        gain = f"{fixed(change.mean, digits, True)} {bounds(change, digits, True)}".strip()
        lines.append(f"{said}; {own_said}; paired gain {gain}: {how} ({of}, so it flatters){_missing(d, info.name)}")
    return lines


def _missing(d: Decoded, metric: str) -> str:
    """What could not be compared."""
    count, seeds = d.left_out(metric), d.compared[metric].seeds
    fewer = f"; on {seeds} of {d.seeds} seeds, which every setting has" if seeds < d.seeds else ""
    return fewer + (f"; {count} left out: not scored on the same sentences by the same judge" if count else "")


def _written(e: Estimate, digits: int, unit: str) -> str:
    return " ".join(part for part in (fixed(e.mean, digits), bounds(e, digits), unit) if part) + f" (n = {e.n})"


def draw(d: Decoded) -> Figure | None:
    """A row a metric, a column a knob that was varied; a line for each combination of the others."""
    if not d.varied or not d.metrics:
        return None
    places = [(info, knob) for info in d.metrics.values() for knob in d.varied]
    drawn = [_lines(d, info, knob) for info, knob in places]
    others = list(dict.fromkeys(label for lines in drawn for label in lines if label))
    with rc_context(STYLE):
        figure, axes = grid(len(places), (3.2, 2.1), len(d.varied), labels=[*REFERENCES, *others])
        for axis, (info, knob), lines in zip(axes, places, drawn):
            _panel(axis, d, info, knob, lines, others)
        handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels())}
        legend(figure, list(handles.values()), list(handles))
    return figure


def _lines(d: Decoded, info: MetricInfo, knob: str) -> Lines:
    lines: Lines = {}
    for name, setting in d.settings.items():
        if e := d.estimate(name, info.name):
            others = ", ".join(f"{n} {setting[n]:g}" for n in d.varied if n != knob)
            lines.setdefault(others, []).append((setting[knob], e))
    joined = {label: points for label, points in lines.items() if len(points) > 1} or lines  # points of no line are in the other columns
    return dict(list(joined.items())[:MOST_LINES])


def _panel(axis: Axes, d: Decoded, info: MetricInfo, knob: str, lines: Lines, labels: Sequence[str]) -> None:
    for others, points in lines.items():
        points.sort(key=lambda p: p[0])
        bars = [[_length(e.mean - e.low) for _, e in points], [_length(e.high - e.mean) for _, e in points]]
        i = labels.index(others) if others else 0
        colour, line = SERIES[i % len(SERIES)], LINES[i // len(SERIES) % len(LINES)]
        values, means = [x for x, _ in points], [e.mean for _, e in points]
        axis.errorbar(values, means, yerr=bars, color=colour, ls=line, lw=1.1, marker="o", ms=3.5, elinewidth=0.7, label=others or None)
    for name, label, style in zip((d.default, RECORDINGS), REFERENCES, (":", "--")):
        if name and (e := d.estimate(name, info.name)):
            axis.axhline(e.mean, color=MUTED, lw=0.9, ls=style, label=label)
    n = max((e.n for points in lines.values() for _, e in points), default=0)
    axis.set_title(f"{info.label} {info.arrow}" + (f" ({info.unit})" if info.unit else "") + f", n = {n}")
    axis.set_xlabel(knob)


def _length(side: float) -> float:
    """Of one side of an error bar: none where no interval is known."""
    return 0.0 if math.isnan(side) else max(side, 0.0)
