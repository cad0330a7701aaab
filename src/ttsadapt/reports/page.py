"""The page: one self-contained HTML file that asks the network for nothing."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ttsadapt.reports.clips import Clip, Listening
from ttsadapt.reports.compare import Preservation, Table, main_table, ordered, reading
from ttsadapt.reports.decoding import Swept
from ttsadapt.reports.diversity import FIGURES, Diversity
from ttsadapt.reports.numbers import count, fixed, percent, seconds
from ttsadapt.reports.plots import svg
from ttsadapt.reports.provenance import date, what_ran
from ttsadapt.reports.sequences import Sequences
from ttsadapt.reports.study import Spoken
from ttsadapt.reports.systems import Systems
from ttsadapt.reports.tables import NOTE, ROLES
from ttsadapt.reports.template import fill, resource

ALT = {
    "tradeoff": "Scatter of gain on target over forgetting on source, one panel a metric; its figures are in the table above.",
    "losses": "Loss terms over steps, one panel a term, one line a run.",
    "diversity": "Scatter of gain on target over figures of the training data, a point a system; its correlations are in the table below.",
    "divergence": "Validation loss and validated metrics over steps, a row for each run and set; the sentences above hold the best steps.",
    "decoding": "Metrics against settings of decoding; the sentences above hold the best settings.",
    "blocks": "Weight of every block in the emotion probe and in the speaker probe.",
}
FEW_COLUMNS = 14
"""up to here every set's columns are shown at first; beyond, only target and source"""


def render(
    systems: Systems,
    changes: Table,
    preservation: Preservation,
    heard: Sequence[Listening],
    figures: Mapping[str, Figure],
    sequences: Sequences,
    diversity: Diversity,
    diverging: Sequence[str] = (),
    sweeps: Sequence[Swept] = (),
    listening: Sequence[Mapping[str, Any]] = (),
) -> str:
    """`listening`: the study's listening tests (`ttsadapt.listening.section`)."""
    main = main_table(systems)
    content = {
        "study": systems.study,
        "systems": systems,
        "date": date(systems.study),
        "reading": [named(systems, sentence) for sentence in reading(systems)],
        "main": main,
        "hidden": [] if len(main.columns) <= FEW_COLUMNS else [g.key for g in main.groups if g.key not in ("target", "source")],
        "changes": changes,
        "drift": [s for s in systems.study.sets if any(x.drift(s) is not None for x in systems)],
        "preservation": preservation,
        "sequences": sequences,
        "diversity": diversity,
        "axes": FIGURES,
        "diverging": [named(systems, sentence) for sentence in diverging],
        "sweeps": [(s, _drawn(s, i)) for i, s in enumerate(sweeps)],
        "listening": listening,
        "figures": {name: Markup(svg(figure, name, ALT[name])) for name, figure in figures.items()},
        "probes": probes(systems),
        "heard": heard,
        "heard_by_set": [(part, list(group)) for part, group in groupby(heard, key=lambda h: h.spoken.set)],
        "available": {s: sum(k == s for k, _ in systems.study.spoken) for s in systems.study.sets},
        "clip_scores": lambda spoken, clip: clip_scores(systems, spoken, clip),
        "ran": what_ran(systems.study),
        "metrics": ordered(systems.study.metrics),
        "roles": ROLES,
        "note": NOTE,
        "style": Markup(resource("report.css")),
    }
    return fill("report.html", "report.js", content, {"count": count, "percent": percent, "seconds": seconds})


def _drawn(sweep: Swept, number: int) -> list[Markup]:
    return [Markup(svg(figure, f"decoding-{number}-{i}", ALT["decoding"])) for i, figure in enumerate(sweep.figures)]


def named(systems: Systems, sentence: str) -> Markup:
    """The sentence, escaped, with the systems' names set in bold."""
    labels = sorted((str(escape(s.label)) for s in systems.adapted), key=len, reverse=True)
    if not labels:
        return escape(sentence)
    pattern = rf"(?<![\w+])({'|'.join(map(re.escape, labels))})(?![\w+])"
    return Markup(re.sub(pattern, r"<b>\1</b>", str(escape(sentence))))


def clip_scores(systems: Systems, spoken: Spoken, clip: Clip) -> str:
    """The leading metrics of this very clip: "MCD 5.21 · PER 0.12"."""
    said = []
    for metric in ordered(systems.study.metrics)[:3]:
        value = clip.system.values(spoken.set, metric.name).get(spoken.id)
        if value is not None:
            said.append(f"{metric.label} {fixed(value, 2)}")
    return " · ".join(said)


def probes(systems: Systems) -> list[tuple[str, str]]:
    """(group and what was chosen, how well the probes did against chance), one entry a distinct ranking."""
    said = []
    for entry in (e for s in systems.adapted for run in s.runs for e in run.layers):
        probe = entry.get("probe") or {}
        scores = [
            f"{kind} accuracy {percent(probe[f'{kind}_accuracy'])}"
            + (f" (chance {percent(probe[f'{kind}_chance'])})" if probe.get(f"{kind}_chance") is not None else "")
            for kind in ("emotion", "speaker")
            if probe.get(f"{kind}_accuracy") is not None
        ]
        chosen = ", ".join(map(str, entry.get("chosen") or ())) or "none"
        said.append((f"{entry.get('group') or 'blocks'}: chosen {chosen}", "; ".join(scores)))
    return list(dict.fromkeys(said))
