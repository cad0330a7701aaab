"""Rows of scores.csv: written, read, averaged over seeds, turned so that more is better, and told apart by who judged them.

Runs, comparisons and reports all go through here, so that the same pair of runs gives the same figure everywhere.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ttsadapt.errors import DataError
from ttsadapt.files import replacing
from ttsadapt.metrics.intervals import Interval, paired_interval

Row = dict[str, Any]
"""One utterance x metric: the columns of scores.csv"""
COLUMNS = (
    *("set", "utterance", "metric", "value", "unit", "better", "model", "version", "speaker", "emotion", "text", "weight"),
    *("seed", "why", "share"),
)
"""`utterance` is the clip's name, `seed` what it was spoken with ("" for recordings), `why` the reason where `value` is nan, `share` "1"
where each value is a share in %, such as that of hits"""
RECORDED = ("recordings/", "resynthesis/")
"""what the names of sets begin with that no model spoke"""
UNTUNED = "base/"
"""what the names of sets begin with that the untuned model spoke"""
Table = dict[str, dict[str, dict[str, Row]]]
"""Rows by set, metric and utterance id; several seeds of an utterance are one row"""
Judges = tuple[tuple[str, str], ...]
"""(model, version) of all who judged, sorted"""


def write_scores(path: Path, rows: Iterable[Row]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_scores(path: Path) -> list[Row]:
    """Raises DataError when the file is missing or is no scores.csv; rows without a weight count as one each."""
    if not path.is_file():
        raise DataError(f"no {path}: run `ttsadapt evaluate` for this run first")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_read(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no table of scores ({error!r}): delete it and run `ttsadapt evaluate` again") from error


def _read(row: dict[str, str]) -> Row:
    known = {"value": float(row["value"]), "weight": float(row.get("weight") or 1)}
    return row | known | {key: row.get(key) or "" for key in ("seed", "why", "share")}


def plain(name: str) -> str:
    """ "base/target" -> "target"."""
    return next((name[len(p) :] for p in (*RECORDED, UNTUNED) if name.startswith(p)), name)


def utterance_of(row: Row) -> str:
    """The utterance's id: the clip's name without what tells its seed."""
    return str(row["utterance"]).removesuffix(f"--s{row['seed']}") if row.get("seed") else str(row["utterance"])


def group_of(row: Row) -> str:
    """What is drawn as a whole when an interval is estimated: all that say one text."""
    return str(row["text"] or row["utterance"])


def tabled(rows: Iterable[Row]) -> Table:
    """`by_utterance` of every set and metric; the recordings of a set are what is ideal where near is best."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row["set"], {}).setdefault(row["metric"], []).append(row)
    ideals = {
        name: {metric: by_utterance(listed) for metric, listed in found.get(f"{RECORDED[0]}{name}", {}).items()}
        for name in {plain(name) for name in found}
    }
    return {s: {m: by_utterance(listed, ideals[plain(s)].get(m, {})) for m, listed in metrics.items()} for s, metrics in found.items()}


def by_utterance(rows: Iterable[Row], ideals: Mapping[str, Row] | None = None) -> dict[str, Row]:
    """Rows of one set and one metric, each utterance's seeds as one row: `value` and `goodness` are means over the seeds that have one,
    `seeds` is their number, `deviation` the values' standard deviation. `ideals`: rows of the recordings, by utterance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(utterance_of(row), []).append(row)
    return {u: _averaged(u, listed, (ideals or {}).get(u)) for u, listed in found.items()}


def _averaged(utterance: str, rows: Sequence[Row], ideal: Row | None) -> Row:
    values = [r["value"] for r in rows if math.isfinite(r["value"])]
    good = [g for r in rows if math.isfinite(g := goodness(r, ideal))]  # before the mean: distances do not cancel out
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    means = {name: float(np.mean(listed)) if listed else math.nan for name, listed in (("value", values), ("goodness", good))}
    return rows[0] | {"utterance": utterance, "seeds": len(rows), "deviation": deviation} | means


def goodness(row: Row, ideal: Row | None) -> float:
    """The value turned so that more is better; what is best near the reference counts its distance to the recording."""
    if row["better"] == "near reference":
        return math.nan if ideal is None else -abs(row["value"] - ideal["value"])
    return row["value"] if row["better"] == "higher" else -row["value"]


def change(tuned: Mapping[str, Row], base: Mapping[str, Row], sign: int = 1, draws: int = 2000) -> Interval:
    """How much better `tuned` is than `base` (with sign -1: how much worse), in pairs of rows of one utterance."""
    both = [u for u in tuned if u in base]
    after, before = (sign * np.array([scores[u]["goodness"] for u in both], float) for scores in (tuned, base))
    weights, groups = [tuned[u]["weight"] for u in both], [group_of(tuned[u]) for u in both]
    return paired_interval(after, before, draws, weights=weights, groups=groups)


def judges_of(rows: Iterable[Row]) -> Judges:
    return tuple(sorted({(str(r.get("model") or ""), str(r.get("version") or "")) for r in rows}))


def other_judge(one: Iterable[Row], other: Iterable[Row], names: tuple[str, str]) -> str | None:
    """Why two must not be paired, None when they may: a difference between two judges would be taken for one between models."""
    kinds = judges_of(one), judges_of(other)
    if kinds[0] == kinds[1]:
        return None
    told = [" and ".join(f"{model} {version}".strip() for model, version in kind) or "none" for kind in kinds]
    return f"judged by {told[0]} in {names[0]} and by {told[1]} in {names[1]}"
