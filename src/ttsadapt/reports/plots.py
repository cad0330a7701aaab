"""The plots: drawn once with matplotlib, saved as PNG and as SVG whose colours follow the page's theme."""

import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ttsadapt.files import replacing
from ttsadapt.reports.clips import FLOOR, HOP, Listening, stack
from ttsadapt.reports.compare import Column, Table
from ttsadapt.reports.systems import System, Systems

INK, MUTED, GRID, PAPER = "#1b2130", "#5a6273", "#dcdfe6", "#fdfdfb"
SERIES = ("#2563a8", "#c2571a", "#2f7d4f", "#8a4fa3", "#a8862b", "#b03a5b", "#1f8a94", "#6b6f76")
LINES = ("-", "--", ":", "-.")
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper", **{c: f"--c{i}" for i, c in enumerate(SERIES)}}
"""colour drawn -> CSS variable of the page"""
STYLE: Any = {
    "font.size": 8,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",
    "legend.frameon": False,
}
MOST_PANELS, MOST_POINTS, LEGEND_COLUMNS = 6, 240, 5
BESIDE_A_POINT = 24
"""characters of a name"""


def draw(systems: Systems, changes: Table) -> dict[str, Figure]:
    """{file name: figure}, only those that the study has data for."""
    with rc_context(STYLE):
        drawn = {"tradeoff": tradeoff(systems, changes), "losses": losses(systems), "blocks": blocks(systems)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def save_png(figure: Figure, path: Path) -> None:
    with rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, pil_kwargs={"compress_level": 4})


def svg(figure: Figure, name: str, title: str) -> str:
    """Inline SVG with no identifier that another picture of the page has, and colours that follow the theme."""
    stream = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    width = round(figure.get_figwidth() * 100)  # pixels: never blown up beyond the size it was drawn for
    opening = rf'<svg viewBox="\1" style="max-width:{width}px;min-width:min({width}px,44rem)" role="img" aria-label="{title}">'
    return re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', opening, text, count=1)


def _styles(systems: Systems) -> dict[System, tuple[str, str, bool]]:
    """(colour, line, filled): one colour a way of training; filled markers and broken lines preserve. Colours that come again, too."""
    ways = list(dict.fromkeys(s.training for s in systems.adapted))
    seen = Counter[str]()
    styles = {}
    for system in systems.adapted:
        colour = SERIES[ways.index(system.training) % len(SERIES)]
        styles[system] = (colour, LINES[seen[colour] % len(LINES)], system.preserving)
        seen[colour] += 1
    return styles


def grid(count: int, panel: tuple[float, float], columns: int, top: float = 0.35, labels: Sequence[str] = ()) -> tuple[Figure, list[Axes]]:
    """`count` panels of `panel` inches under `top` inches and a legend of `labels`. Fixed margins: layout engines draw it all thrice."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    left, right, bottom, across, down = 0.55, 0.12, 0.45, 0.6, 0.8
    wide = left + right + columns * panel[0] + (columns - 1) * across
    if labels:
        top += 0.1 + 0.17 * math.ceil(len(labels) / _legend_columns(wide, labels))
    high = top + bottom + rows * panel[1] + (rows - 1) * down
    figure = Figure(figsize=(wide, high))
    places = {"left": left / wide, "right": 1 - right / wide, "bottom": bottom / high, "top": 1 - top / high}
    places |= {"wspace": across / panel[0], "hspace": down / panel[1]}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    columns = _legend_columns(figure.get_figwidth(), labels)
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0, 1), ncols=columns, fontsize=7.5)


def _legend_columns(wide: float, labels: Sequence[str]) -> int:
    """Those that fit into `wide` inches."""
    return max(1, min(LEGEND_COLUMNS, int(wide / (0.5 + 0.058 * max(map(len, labels), default=0)))))


def tradeoff(systems: Systems, changes: Table) -> Figure | None:
    """Gain on target (up = better) over forgetting on source (right = worse), one panel a metric that has both."""
    by_key = {g.key: {c.metric.name: c for c in g.columns} for g in changes.groups}
    gain, lost = by_key.get("gain", {}), by_key.get("forgetting", {})
    names = [name for name in gain if name in lost][:MOST_PANELS]
    if not names:
        return None
    styles, numbered = _styles(systems), _numbered(changes.rows)
    figure, axes = grid(len(names), (3.55, 2.75), 3, labels=list(numbered.values()))
    for axis, name in zip(axes, names):
        _tradeoff_panel(axis, systems, changes.rows, lost[name], gain[name])
    if numbered:
        dots = [
            Line2D([], [], color=c, marker="o", ls="", mfc=c if filled else PAPER) for c, _, filled in map(styles.__getitem__, numbered)
        ]
        legend(figure, dots, list(numbered.values()))
    return figure


def _numbered(rows: Sequence[System]) -> dict[System, str]:
    """What stands above the panels where names are too long to stand beside their points; {} where they are not."""
    longest = max((len(s.label) for s in rows), default=0)
    return {s: f"{i}  {s.label}" for i, s in enumerate(rows, 1)} if longest > BESIDE_A_POINT else {}


def _tradeoff_panel(axis: Axes, systems: Systems, rows: list[System], lost: Column, gain: Column) -> None:
    styles, numbered = _styles(systems), _numbered(rows)
    points, spans = {}, []
    for system, x, y in zip(rows, (c.estimate for c in lost.cells), (c.estimate for c in gain.cells)):
        if x is None or y is None:
            continue
        colour, _, filled = styles[system]
        bars = [[[np.nan_to_num(e.mean - e.low)], [np.nan_to_num(e.high - e.mean)]] for e in (x, y)]
        face = colour if filled else PAPER
        axis.errorbar(x.mean, y.mean, yerr=bars[1], xerr=bars[0], color=colour, elinewidth=0.9, alpha=0.55, fmt="none")
        axis.plot(x.mean, y.mean, "o", color=colour, mfc=face, mew=1.4, ms=6, zorder=3)
        points[system] = (x.mean, y.mean)
        spans += [((x.low, y.mean), (x.high, y.mean)), ((x.mean, y.low), (x.mean, y.high))]
    for plain, kept in systems.preserved_pairs():
        if plain in points and kept in points:
            (x0, y0), (x1, y1) = points[plain], points[kept]
            axis.plot([x0, x1], [y0, y1], color=styles[plain][0], lw=0.8, ls=(0, (2, 2)), zorder=1)
            steps = np.linspace((x0, y0), (x1, y1), 16)
            spans += [(tuple(a), tuple(b)) for a, b in pairwise(steps)]
    for line in (axis.axhline, axis.axvline):
        line(0, color=MUTED, lw=0.7, zorder=0)
    unit = f" ({gain.metric.unit})" if gain.metric.unit else ""
    axis.set_title(gain.metric.label + unit)
    axis.set_xlabel("forgotten on source → worse")
    axis.set_ylabel("gained on target → better")
    axis.margins(0.12)
    names = {s: numbered[s].split()[0] if numbered else s.label for s in points}
    _label_points(axis, {names[s]: p for s, p in points.items()}, [span for span in spans if np.isfinite(span).all()])


def _label_points(axis: Axes, points: dict[str, tuple[float, float]], lines: Sequence[tuple[tuple[float, float], ...]]) -> None:
    """Each label goes to the side of its point where it covers the least of other labels, points and `lines`."""
    axis.autoscale_view()
    scale = axis.figure.dpi / 72
    to_pixels = axis.transData.transform
    room = np.array(axis.get_window_extent().extents)
    dots = [np.concatenate([to_pixels(p) - 6, to_pixels(p) + 6]) for p in points.values()]
    ends = [to_pixels(line) for line in lines]
    taken = np.array([*dots, *(np.concatenate([e.min(0) - 1.5, e.max(0) + 1.5]) for e in ends)])
    offsets = np.array([(dx, dy) for dy, dx in product((9, -9, 0, 18, -18, 27, -27), (6, -6))])
    for label, point in points.items():
        wide, high = len(label) * 3.9 * scale, 8.5 * scale
        corner = to_pixels(point) + offsets * scale - np.stack([wide * (offsets[:, 0] < 0), np.full(len(offsets), high / 2)], 1)
        boxes = np.concatenate([corner, corner + np.array([wide, high])], 1)
        outside = wide * high - _overlaps(boxes, room[None])[:, 0]
        best = int((_overlaps(boxes, taken).sum(1) + 3 * outside + np.arange(len(boxes))).argmin())
        taken = np.vstack([taken, boxes[best]])
        side = "left" if offsets[best, 0] > 0 else "right"
        axis.annotate(label, point, offsets[best], textcoords="offset points", ha=side, va="center", fontsize=6.6, zorder=4)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) boxes as left, bottom, right, top -> (N, M) areas that they share."""
    shared = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return shared.clip(0).prod(-1)


def losses(systems: Systems) -> Figure | None:
    """Small multiples: one panel a term, train first, then validation; one line a run."""
    prefixes = ("train/", "valid/")
    names = dict.fromkeys(n for p in prefixes for s in systems.adapted for r in s.runs for n in r.curves if n.startswith(p))
    if not names:
        return None
    styles = _styles(systems)
    figure, axes = grid(len(names), (2.4, 1.5), 4, labels=[s.label for s in styles])
    for axis, name in zip(axes, names):
        for system, curve in _curves(systems, name):
            colour, line, _ = styles[system]
            steps, values = np.asarray(curve, dtype=float).T
            axis.plot(steps, values, line, color=colour, lw=1.1, marker="." if len(curve) < 8 else None, ms=4)
        axis.set_title(name.replace("/", " · "))
        axis.margins(x=0.02)
        axis.set_xlabel("step")
    handles = [Line2D([], [], color=colour, ls=line, lw=1.4) for colour, line, _ in styles.values()]
    legend(figure, handles, [s.label for s in styles])
    return figure


def _curves(systems: Systems, name: str) -> Iterator[tuple[System, list[tuple[int, float]]]]:
    """Every run's curve of a term, thinned to what a small panel can show."""
    for system in systems.adapted:
        for run in system.runs:
            curve = [(s, v) for s, v in run.curves.get(name, []) if math.isfinite(v)]
            if curve:
                yield system, curve[:: max(1, math.ceil(len(curve) / MOST_POINTS))]


def blocks(systems: Systems) -> Figure | None:
    """The learnt weight of every block in the emotion and the speaker probe; chosen blocks are named in ink."""
    found = {json.dumps(e, sort_keys=True): e for s in systems.adapted for r in s.runs for e in r.layers}
    if not found:
        return None
    figure, axes = grid(len(found), (4.2, 2.1), 3, top=0.6)
    for axis, entry in zip(axes, found.values()):
        _blocks_panel(axis, entry)
    legend(figure, *axes[0].get_legend_handles_labels())
    return figure


def _blocks_panel(axis: Axes, entry: dict) -> None:
    names = [str(b) for b in entry["blocks"]]
    places = np.arange(len(names))
    bars = [k for k in ("emotion", "speaker") if _fits(entry.get(k), names)]
    for i, key in enumerate(bars):
        wide = 0.76 / len(bars)
        axis.bar(places - 0.38 + wide * (i + 0.5), entry[key], wide * 0.92, color=SERIES[i], label=key)
    if _fits(entry.get("mean"), names):
        axis.plot(places, entry["mean"], "D", color=INK, ms=4, label="mean")
    chosen = {str(c) for c in entry.get("chosen") or ()}
    axis.set_xticks(places, [f"{n} ●" if n in chosen else n for n in names], rotation=30 if len(names) > 6 else 0)
    for tick, name in zip(axis.get_xticklabels(), names):
        tick.set_color(INK if name in chosen else MUTED)
    axis.grid(axis="x", visible=False)
    axis.set_title(f"{entry.get('group', '')}: weight of each block")


def _fits(weights: object, names: Sequence[str]) -> bool:
    return isinstance(weights, list) and len(weights) == len(names)


def mel_pairs(heard: Sequence[Listening]) -> Figure:
    """Every system's mel spectrogram of one utterance a set, the recording first, on one time axis."""
    firsts = list({h.spoken.set: h for h in reversed(heard)}.values())[::-1]
    rows = max(len(h.clips) for h in firsts)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(firsts), 0.9 * rows + 0.6), layout="constrained")
        axes = figure.subplots(1, len(firsts), squeeze=False)[0]
        for axis, once in zip(axes, firsts):
            image = stack([c.mel for c in once.clips])
            extent = (0, image.shape[1] * HOP, len(once.clips), 0)
            axis.imshow(image, cmap="magma", vmin=FLOOR, vmax=0, aspect="auto", extent=extent, interpolation="nearest")
            for edge in range(1, len(once.clips)):
                axis.axhline(edge, color=PAPER, lw=2)
            axis.set_yticks(np.arange(len(once.clips)) + 0.5, [c.system.label.replace("+", "+\n", 1) for c in once.clips])
            axis.set_title(f"{once.spoken.set}: {once.spoken.id}")
            axis.set_xlabel("seconds")
            axis.grid(visible=False)
    return figure
