"""Two finished runs against each other, sentence by sentence: a paired bootstrap over texts (Koehn 2004), seeds averaged first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ttsadapt.config.finding import find
from ttsadapt.config.nearest import hint
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.evaluation import RECORDED, Row, Table, goodness, read_scores, tabled
from ttsadapt.files import read_json, write_json
from ttsadapt.metrics.intervals import grouped
from ttsadapt.text_table import aligned


def compare(cfg: DictConfig) -> None:
    """Print the table, leave it as json."""
    if len(cfg.runs) != 2:
        raise ConfigError(f"runs={list(cfg.runs)}: give two, runs=[<study>/<run id>,<study>/<run id>]")
    folders = [find(OmegaConf.create({"run": run, "paths": cfg.paths})) for run in cfg.runs]
    first, second = (tabled(read_scores(folder / "scores.csv")) for folder in folders)
    found = compared(first, second, cfg.set, list(cfg.metric), cfg.draws, [str(run) for run in cfg.runs])
    names = [str(read_json(folder / "summary.json").get("name", run)) for folder, run in zip(folders, cfg.runs)]
    about = {"runs": [str(f) for f in folders], "names": names, "set": cfg.set, "draws": cfg.draws}
    out = Path(cfg.to).expanduser() if cfg.to else folders[1] / "compared" / f"{folders[0].name}-{cfg.set.replace('/', '-')}.json"
    write_json(out, about | {"metrics": found})
    print("\n".join([f"{cfg.set}: {names[1]} ({cfg.runs[1]}) against {names[0]} ({cfg.runs[0]})", *told(found), f"written to {out}"]))


def compared(first: Table, second: Table, name: str, asked: Sequence[str], draws: int, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{metric: figures of `paired`, with unit, better, model and version}. UserError when something asked for cannot be compared."""
    for table, run in zip((first, second), runs):
        if name not in table:
            known = [n for n in table if not n.startswith(RECORDED)]
            raise ConfigError(f"set={name}: {run} has no scores of it{hint(name, known)}; there are {', '.join(known)}")
    both = [m for m in first[name] if m in second[name]]
    for metric in asked:
        if metric not in both:
            raise ConfigError(f"metric=[{metric}]: not both runs have it on {name}; both have {', '.join(both) or 'none'}")
    found = {}
    for metric in asked or both:
        one, other = first[name][metric], second[name][metric]
        same_judge(metric, one, other, runs)
        row = next(iter(one.values()))
        ideals = [table.get(f"recordings/{name}", {}).get(metric, {}) for table in (first, second)]
        about = {key: row[key] for key in ("unit", "better", "model", "version")}
        found[metric] = paired(one, other, ideals, draws) | about
    return found


def same_judge(metric: str, one: Mapping[str, Row], other: Mapping[str, Row], runs: Sequence[str]) -> None:
    """UserError when the two were scored by different judges: a difference would be the judges'."""
    kinds = [sorted({(r["model"], r["version"]) for r in rows.values()}) for rows in (one, other)]
    if kinds[0] != kinds[1]:
        told = [" and ".join(f"{model} {version}".strip() for model, version in kind) for kind in kinds]
        raise UserError(
            f"{metric} was judged by {told[0]} in {runs[0]} and by {told[1]} in {runs[1]}: score both with the same one "
            f"(ttsadapt evaluate run=... metric=[{metric}]), or leave {metric} out of metric=[...]"
        )


def paired(one: Mapping[str, Row], other: Mapping[str, Row], ideals: Sequence[Mapping[str, Row]], draws: int) -> dict[str, Any]:
    """The means of both, `difference` of the second from the first in the metric's unit with its 95 % interval `low`, `high`, the share
    of draws in which the second is `better`, `n` utterances in `texts`.

    What is best near the reference is compared by its distance to the recording.
    """
    shared = [u for u in one if u in other and np.isfinite([one[u]["value"], other[u]["value"]]).all()]
    better = one[shared[0]]["better"] if shared else ""
    sign = 1.0 if better == "higher" else -1.0
    values = [np.array([sign * goodness(rows[u], ideal.get(u)) for u in shared]) for rows, ideal in zip((one, other), ideals)]
    known = np.isfinite(values[0]) & np.isfinite(values[1]) if shared else np.zeros(0, bool)
    n = int(known.sum())
    if n == 0:
        return {"means": [None, None], "difference": None, "low": None, "high": None, "share_better": None, "n": 0, "texts": 0}
    weight = np.array([one[u]["weight"] for u in shared], float)[known]
    texts = np.array([one[u]["text"] for u in shared])[known]
    change, mass = grouped((values[1] - values[0])[known], weight, texts)
    pick = np.random.default_rng(0).integers(0, len(change), (draws, len(change)))
    drawn = (change * mass)[pick].sum(1) / mass[pick].sum(1)
    low, high = (None, None) if len(change) == 1 else (float(x) for x in np.percentile(drawn, [2.5, 97.5]))
    wins = float(((sign * drawn) > 0).mean() + 0.5 * (drawn == 0).mean())
    return {
        "means": [float(np.average(v[known], weights=weight)) for v in values],
        "difference": float(np.average(change, weights=mass)), "low": low, "high": high,
        "share_better": wins if len(change) > 1 else None, "n": n, "texts": len(change),
    }  # fmt: skip


def told(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table, a line a metric."""
    rows = [["  metric", "first", "second", "difference", "95 % interval", "better", "n", "unit"]]
    for metric, f in found.items():
        if f["difference"] is None:
            rows.append([f"  {metric}", "–", "–", "–", "", "–", "0", "no utterance has a value in both runs"])
            continue
        around = "" if f["low"] is None else f"[{f['low']:.3f}, {f['high']:.3f}]"
        share = "–" if f["share_better"] is None else f"{100 * f['share_better']:.1f} %"
        distance = ", distance to the recording" if f["better"] == "near reference" else f", {f['better']} is better"
        means = [f"{m:.3f}" for m in f["means"]]
        rows.append([f"  {metric}", *means, f"{f['difference']:+.3f}", around, share, str(f["n"]), f"{f['unit']}{distance}"])
    return aligned(rows, left=(0, 7))
