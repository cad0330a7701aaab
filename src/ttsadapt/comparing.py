"""Two finished runs against each other, sentence by sentence: a paired bootstrap over texts (Koehn 2004), seeds averaged first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ttsadapt.config.finding import find
from ttsadapt.config.nearest import hint
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.files import read_json, write_json
from ttsadapt.metrics.intervals import FEW, share_above, too_few
from ttsadapt.metrics.rows import RECORDED, Row, Table, change, group_of, other_judge, read_scores, tabled
from ttsadapt.text_table import aligned


def compare(cfg: DictConfig) -> None:
    """Print the table, leave it as json."""
    if len(cfg.runs) != 2:
        raise ConfigError(f"runs={list(cfg.runs)}: give two, runs=[<study>/<run id>,<study>/<run id>]")
    folders = [find(OmegaConf.create({"run": run, "paths": cfg.paths})) for run in cfg.runs]
    if folders[0].resolve() == folders[1].resolve():
        raise ConfigError(f"runs={list(cfg.runs)}: both are the same run, {folders[0]}: give two")
    first, second = (tabled(read_scores(folder / "scores.csv")) for folder in folders)
    found = compared(first, second, cfg.set, list(cfg.metrics), cfg.draws, [str(run) for run in cfg.runs])
    names = [str(read_json(folder / "summary.json").get("name", run)) for folder, run in zip(folders, cfg.runs)]
    about = {"runs": [str(f) for f in folders], "names": names, "set": cfg.set, "draws": cfg.draws}
    out = Path(cfg.to).expanduser() if cfg.to else folders[1] / "compared" / f"{folders[0].name}-{cfg.set.replace('/', '-')}.json"
    write_json(out, about | {"metrics": found})
    title = f"{cfg.set}: {names[1]} ({cfg.runs[1]}) against {names[0]} ({cfg.runs[0]})"
    print("\n".join([title, *told(found), *other_models(folders), f"written to {out}"]))


def other_models(folders: Sequence[Path]) -> list[str]:
    """A line where the two did not start from the same model: what they differ in is not their strategies alone."""
    kinds = [str(read_json(folder / "summary.json").get("backbone")) for folder in folders]
    bases = [read_json(path).get("base") if (path := folder / "provenance.json").is_file() else None for folder in folders]
    if kinds[0] != kinds[1]:
        return [f"they are of different backbones ({' and '.join(kinds)}): a difference is not that of the strategies alone"]
    return ["they began from different weights of their backbone: a difference is not that of the strategies alone"] * (
        bases[0] != bases[1]
    )


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
        if why := other_judge(one.values(), other.values(), (runs[0], runs[1])):
            how = f"score both with the same one (ttsadapt evaluate run=... metric=[{metric}]), or leave {metric} out of metric=[...]"
            raise UserError(f"{metric} was {why}: {how}")
        same_sentences(metric, one, other, runs)
        row = next(iter(one.values()))
        found[metric] = paired(one, other, draws) | {key: row[key] for key in ("unit", "better", "model", "version")}
    return found


def same_sentences(metric: str, one: Mapping[str, Row], other: Mapping[str, Row], runs: Sequence[str]) -> None:
    """ConfigError when an id is not the same text in the same voice in both: there is nothing to pair."""
    for u in (u for u in one if u in other):
        said = [" by ".join(repr(str(rows[u][key])) for key in ("text", "speaker")) for rows in (one, other)]
        if said[0] != said[1]:
            raise ConfigError(
                f"runs=[...]: {u} of {metric} is {said[0]} in {runs[0]} and {said[1]} in {runs[1]}: give two runs of one corpus"
            )


def paired(one: Mapping[str, Row], other: Mapping[str, Row], draws: int) -> dict[str, Any]:
    """The means of both, `difference` of the second from the first in the metric's unit with its 95 % interval `low`, `high`, the share
    of draws in which the second is `better`, `n` utterances in `texts`.

    What is best near the reference is compared by its distance to the recording.
    """
    known = [u for u in one if u in other and other[u]["weight"] > 0 and np.isfinite(other[u]["goodness"] - one[u]["goodness"])]
    if not known:
        return {"means": [None, None], "difference": None, "low": None, "high": None, "share_better": None, "n": 0, "texts": 0}
    sign = 1.0 if one[known[0]]["better"] == "higher" else -1.0
    good = [np.array([rows[u]["goodness"] for u in known]) for rows in (one, other)]
    weight, texts = [other[u]["weight"] for u in known], [group_of(other[u]) for u in known]
    gain = change(other, one, draws=draws)  # as a run's gain against its base
    single = len(set(texts)) == 1
    low, high = (None, None) if single else sorted((sign * gain.low, sign * gain.high))
    return {
        "means": [float(sign * np.average(g, weights=weight)) for g in good],
        "difference": sign * gain.mean, "low": low, "high": high,
        "share_better": None if single else share_above(good[1] - good[0], weight, texts, draws), "n": gain.n, "texts": len(set(texts)),
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
    fewest = min((f["texts"] for f in found.values() if f["texts"]), default=FEW)
    return [*aligned(rows, left=(0, 7)), *([too_few(fewest)] if fewest < FEW else [])]
