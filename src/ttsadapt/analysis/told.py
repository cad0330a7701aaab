"""A layer analysis for people: a table in the terminal, a picture beside layers.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttsadapt.analysis.ranking import Ranking
from ttsadapt.text_table import aligned

LABELS = ("emotion", "speaker", "mean")


def table(ranking: Ranking) -> str:
    """Weight of every block, with its spread over seeds, and its rank; then how good the probes were and how sure the ranking is."""
    columns = [n for n in LABELS if getattr(ranking, n)]
    cells = {n: _cells(getattr(ranking, n), ranking.spread.get(n)) for n in columns}
    order = ranking.order() if ranking.refusal() is None else []
    rows = [["  block", *columns, *["rank"] * bool(order)]]
    for i, block in enumerate(ranking.blocks):
        mark = "*" if block in ranking.chosen else " "
        place = [str(order.index(block) + 1)] if order else []
        rows.append([f"{mark} {ranking.group}.{block}", *(cells[n][i] for n in columns), *place])
    return "\n".join([*aligned(rows), *_judged(ranking), *_sure(ranking)])


def _cells(weights: Sequence[float], spread: Sequence[float] | None) -> list[str]:
    return [f"{w:.3f}" + (f" ± {spread[i]:.3f}" if spread else "") for i, w in enumerate(weights)]


def _judged(ranking: Ranking) -> list[str]:
    probe = ranking.probe
    known = [n for n in LABELS[:2] if probe[f"{n}_accuracy"] is not None]
    said = [f"{n} {probe[f'{n}_accuracy']:.0%} (chance {probe[f'{n}_chance']:.0%})" for n in known]
    lines = [f"  probes on {probe['held_out']} held-out utterances: {', '.join(said)}"]
    refusal = ranking.refusal()
    if refusal is not None:
        lines.append(f"  unrankable: {refusal}")
    idle = [n for n in known if n not in probe["used"]]
    if idle and refusal is None:
        lines.append(f"  {idle[0]} is no better than chance: it is left out of the mean")
    return lines


def _sure(ranking: Ranking) -> list[str]:
    """One line a label, where there were several seeds."""
    lines = []
    for name, found in ranking.stability.items():
        same = "-" if found["spearman"] is None else f"{found['spearman']:.2f}"
        ends = [f"{end} {_votes(found[end])} (changes in {found[f'{end}_changes']:.0%} of pairs)" for end in ("highest", "lowest")]
        lines.append(f"  {name} over {ranking.settings['seeds']} seeds: rank correlation {same}, {', '.join(ends)}")
    return lines


def _votes(of: dict[str, int]) -> str:
    return " ".join(f"{block}:{n}" for block, n in of.items())


def picture(rankings: Sequence[Ranking], path: Path) -> None:
    """A panel a group: emotion and speaker weights as bars with their spread over seeds, the mean as points, uniform weights as a line."""
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ttsadapt.reports.plots import INK, MUTED, SERIES, STYLE, save_png

    def panel(axis: Axes, ranking: Ranking) -> None:
        places = range(len(ranking.blocks))
        bars = [n for n in LABELS[:2] if getattr(ranking, n)]
        for i, name in enumerate(bars):
            wide = 0.76 / len(bars)
            at = [p - 0.38 + wide * (i + 0.5) for p in places]
            look: dict[str, Any] = {"color": SERIES[i], "label": name, "ecolor": INK, "error_kw": {"elinewidth": 0.8}}
            axis.bar(at, getattr(ranking, name), wide * 0.92, yerr=ranking.spread.get(name), **look)
        if ranking.mean:
            axis.errorbar(list(places), ranking.mean, ranking.spread.get("mean"), fmt="D", color=INK, ms=4, elinewidth=0.8, label="mean")
        axis.axhline(1 / len(ranking.blocks), color=MUTED, lw=0.8, ls=":", label="uniform")
        axis.set_xticks(list(places), [f"{b} ●" if b in ranking.chosen else b for b in ranking.blocks])
        axis.grid(axis="x", visible=False)
        axis.set_title(f"{ranking.group}" + ("" if ranking.refusal() is None else ": no better than chance"))
        axis.set_xlabel("block, from input to output")
        axis.set_ylim(bottom=0)

    with rc_context(STYLE):
        wide = max(3.6, 0.45 * max(len(r.blocks) for r in rankings) + 1)
        figure = Figure(figsize=(wide, 2.6 * len(rankings)), layout="constrained")
        axes = figure.subplots(len(rankings), 1, squeeze=False)[:, 0]
        for axis, ranking in zip(axes, rankings):
            panel(axis, ranking)
        axes[0].set_ylabel("weight")
        axes[-1].legend(ncols=4, fontsize=7)  # the default group has all there is
    save_png(figure, path)
