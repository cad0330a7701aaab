"""What listeners said, as text, tables and a plot. Everything is written from the same mapping (`reading.outcome`)."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ttsadapt.listening.intervals import ALIKE, FEWEST
from ttsadapt.listening.key import Key
from ttsadapt.listening.results import Answered
from ttsadapt.reports.numbers import Estimate, bounds, fixed
from ttsadapt.text_table import aligned

Outcome = Mapping[str, Any]
DIGITS = 2


def estimate(entry: Mapping[str, Any]) -> Estimate:
    low, high = (math.nan if entry[k] is None else entry[k] for k in ("low", "high"))
    return Estimate(entry["mean"], low, high, entry["n"])


def amount(entry: Mapping[str, Any], signed: bool = False) -> str:
    """ "3.41 [3.10, 3.72]", or why there is no interval: "3.41 (too few listeners)"."""
    found, why = estimate(entry), entry.get("why")
    return " ".join(filter(None, [fixed(found.mean, DIGITS, signed), bounds(found, DIGITS, signed) or (f"({why})" if why else "")]))


def screening(found: Outcome) -> str:
    """How many listeners count and why the others do not."""
    refused = "".join(f"; refused: {n} × {kind}" for kind, n in found["refused"].items())
    total = found["listeners"] + found["dropped"]
    return f"{found['listeners']} of {total} listeners count ({found['rule']}), {found['dropped']} dropped{refused}"


def agreement(found: Outcome) -> str:
    if found["alpha"] is None:
        return "Krippendorff's alpha: not known, no clip has two ratings or all are the same"
    return f"Krippendorff's alpha of the listeners: {fixed(found['alpha'], DIGITS)} (interval scale, {found['alpha_units']} clips)"


def notes(found: Outcome) -> list[str]:
    """What the figures are, a sentence each."""
    missing = {m.get("why") for m in (*found["means"].values(), *found["differences"])}
    few, said = sorted(missing - {ALIKE, "", None}), ["95 % intervals: bootstrap over listeners and sentences."]
    if few:
        said.append(f"{few[0].capitalize()}: an interval takes {FEWEST} listeners and {FEWEST} sentences; means of fewer are no result.")
    if ALIKE in missing:
        said.append("All alike: ratings that do not vary do not say how far others would.")
    if found["differences"] and not few:
        said.append(
            "Differences: each listener's severity and each sentence's difficulty are taken off, so where not everybody hears everything "
            "they are not quite those of the means; not corrected for many comparisons."
        )
    if found["differences"] and few:
        said.append("Differences are those of the means: of so few, a listener's severity and a sentence's difficulty are not known.")
    if found["exact"]:
        said.append("The binomial test takes all answers for independent.")
    return said


def rows(found: Outcome, automatic: bool = True) -> list[dict[str, str]]:
    """One an item: what a table of it shows; `automatic`: with the metrics' figures."""
    against = {(d["item"], d["other"]): d for d in found["differences"]}
    floor = next((i for i in found["means"] if found["kinds"].get(i) == "floor"), None)
    listed = []
    for item, mean in found["means"].items():
        row = {"": item, found["unit"]: amount(mean), "n": str(mean["n"]), "before screening": amount(found["means_of_everyone"][item])}
        if floor is not None:
            row[f"against {floor}"] = "–" if item == floor else amount(_between(against, item, floor), True)
        if item in found["exact"]:
            row["binomial p"] = f"{found['exact'][item]['p']:.2g}"
        for name, values in found["automatic"].items() if automatic else ():
            row[f"{found['labels'][name]}, of the clips played"] = fixed(values[item], DIGITS) if item in values else "–"
        listed.append(row)
    return listed


def _between(against: Mapping[tuple[str, str], Any], item: str, other: str) -> dict[str, Any]:
    if (item, other) in against:
        return against[item, other]
    turned = against[other, item]
    low, high = (None if turned[k] is None else -turned[k] for k in ("high", "low"))
    return turned | {"mean": -turned["mean"], "low": low, "high": high}


def markdown(found: Outcome) -> str:
    """table.md."""
    table = rows(found)
    lines = [f"# {found['name']}: {found['title']}", screening(found) + ".", _pipes(table)]
    lines += [" ".join(notes(found)), agreement(found) + "."]
    if found["differences"]:
        pairs = [{"": f"{d['item']} − {d['other']}", "difference": amount(d, True)} for d in found["differences"]]
        lines += ["## Differences", _pipes(pairs)]
    if found["exact"]:
        single = [
            {"": item, "listener": who, found["unit"]: fixed(t["share"], DIGITS), "n": str(t["n"]), "binomial p": f"{t['p']:.2g}"}
            for item, exact in found["exact"].items()
            for who, t in exact["listeners"].items()
        ]
        lines += ["## Each listener", _pipes(single)]
    if found["correlations"]:
        agreeing = [
            {"metric": c["label"], "Spearman": amount(c | {"mean": c["rho"]}), "n (clips)": str(c["n"])} for c in found["correlations"]
        ]  # fmt: skip
        lines += [
            "## Automatic metrics against listeners",
            _pipes(agreeing),
            "Metrics are turned so that more is better; recordings are left out.",
        ]
    return "\n\n".join(lines) + "\n"


def _pipes(table: Sequence[Mapping[str, str]]) -> str:
    from ttsadapt.reports.tables import markdown as escaped

    heads = list(table[0])
    lines = ["| " + " | ".join(map(escaped, heads)) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(escaped(row[h]) for h in heads) + " |" for row in table)])


def console(found: Outcome) -> str:
    """The table for a terminal, without the automatic figures."""
    table = rows(found, automatic=False)
    heads = list(table[0])
    lines = aligned([heads, *([row[h] for h in heads] for row in table)])
    best = [f"{c['label']} {amount(c | {'mean': c['rho']})}, n = {c['n']}" for c in found["correlations"][:3]]
    more = [f"automatic metrics that agree most (Spearman): {'; '.join(best)}"] if best else []
    return "\n".join([screening(found), *lines, *notes(found), agreement(found), *more])


def to_csv(found: Outcome) -> str:
    """table.csv: a row a figure, full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, ["quantity", "item", "other", "mean", "low", "high", "n", "unit", "p", "why"], restval="", lineterminator="\n"
    )
    writer.writeheader()
    unit = {"unit": found["unit"]}
    for quantity, table in (("mean", found["means"]), ("mean_of_everyone", found["means_of_everyone"])):
        writer.writerows({"quantity": quantity, "item": item} | mean | unit for item, mean in table.items())
    writer.writerows({"quantity": "difference"} | d | unit for d in found["differences"])
    for item, exact in found["exact"].items():
        each = {"": exact} | exact["listeners"]
        writer.writerows(
            {"quantity": "wilson", "item": item, "other": who, "mean": t["share"], **{k: t[k] for k in ("low", "high", "n", "p")}} | unit
            for who, t in each.items()
        )
    for c in found["correlations"]:
        writer.writerow(
            {"quantity": "spearman", "item": c["metric"], "mean": c["rho"], **{k: c[k] for k in ("low", "high", "n")}, "unit": "rho"}
        )
    return stream.getvalue()


def to_ratings(key: Key, sessions: Sequence[Answered], kept: Sequence[Answered]) -> str:
    """ratings.csv: every answer, also of listeners that do not count, unblinded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["listener", "counts", "kind", "item", "set", "utterance", "answer", "value"])
    for session in sessions:
        for code, answer in sorted(session.answers.items()):
            trial = key.trials[code]
            kind = "rated" if trial.counts else "repeat" if trial.repeats else "check"
            counts = int(session in kept and trial.counts)
            writer.writerow([session.listener, counts, kind, trial.item, trial.set, trial.utterance, answer, trial.worth[answer]])
    return stream.getvalue()


def figure(found: Outcome) -> Any:
    """A dot and an interval an item, a hollow dot where none is known; beside them, a metric's correlation with the listeners."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ttsadapt.reports.plots import MUTED, SERIES, STYLE

    panels = [("means", [(item, estimate(m)) for item, m in found["means"].items()], found["unit"])]
    if found["correlations"]:
        listed = [(c["label"], estimate(c | {"mean": c["rho"]})) for c in found["correlations"]]
        panels.append(("correlations", listed, "Spearman's rho with the listeners"))
    with rc_context(STYLE):
        high = 0.9 + 0.3 * max(len(entries) for _, entries, _ in panels)
        drawn = Figure(figsize=(5.2 * len(panels), high), layout="constrained")
        axes = drawn.subplots(1, len(panels), squeeze=False)[0]
        for axis, (_, entries, label), colour in zip(axes, panels, SERIES):
            for place, (_, e) in enumerate(entries):
                if not math.isnan(e.low):
                    axis.plot([e.low, e.high], [place, place], color=colour, lw=1.4)
                filled = colour if not math.isnan(e.low) else "none"
                axis.plot(e.mean, place, "o", color=colour, mfc=filled, ms=5)
            axis.set_yticks(range(len(entries)), [name for name, _ in entries])
            axis.set_ylim(len(entries) - 0.5, -0.5)
            hollow = any(math.isnan(e.low) for _, e in entries)
            axis.set_xlabel(f"{label}\n(hollow: no interval is known)" if hollow else label)
            axis.grid(axis="y", visible=False)
        if (zero := found["chance"]) is not None or not found["kinds"]:
            axes[0].axvline(zero or 0.0, color=MUTED, lw=0.8)
        for axis in axes[1:]:
            axis.axvline(0, color=MUTED, lw=0.8)
    return drawn


def plot(found: Outcome, path: Path) -> None:
    from ttsadapt.reports.plots import save_png

    save_png(figure(found), path)
