"""The reader: a study's run folders as plain data."""

import csv
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ttsadapt.errors import UserError
from ttsadapt.files import read_json
from ttsadapt.metrics.rows import RECORDED, UNTUNED, Judges, Row, judges_of, plain, tabled, utterance_of
from ttsadapt.reports.settings import Settings, settings

SETS = ("target", "source", "unseen", "ood")
PREFIXES = (*RECORDED, UNTUNED)
ACRONYMS = frozenset({"dnsmos", "utmos", "rmse"})
Scores = dict[tuple[str, str], dict[str, float]]
"""{(set, metric): {utterance id: value}}"""


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric from the rows that it wrote."""

    name: str
    unit: str
    better: str
    """"lower", "higher" or "near reference" """
    judges: tuple[tuple[str, str], ...] = ()
    """(model, version), all that occur"""
    share: bool = False
    """of clips, in %: each value is a hit or a miss"""

    @property
    def label(self) -> str:
        """Short names in capitals, as papers write them: "mcd" -> "MCD", "f0_correlation" -> "F0 correlation"."""
        words = self.name.replace("_", " ").split(" ")
        return " ".join(w.upper() if len(w) <= 3 or w in ACRONYMS else w for w in words)

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑"}.get(self.better, "≈")


@dataclass(frozen=True)
class Spoken:
    """What was said in a test utterance."""

    id: str
    set: str
    text: str
    emotion: str
    speaker: str


@dataclass
class Run:
    """One run folder."""

    folder: Path
    summary: dict[str, Any]
    settings: Settings = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    goodness: Scores = field(default_factory=dict)
    """as `scores`, turned so that more is better"""
    judges: dict[tuple[str, str], Judges] = field(default_factory=dict)
    """{(set, metric): who judged}"""
    weights: dict[tuple[str, str], float] = field(default_factory=dict)
    """{(metric, utterance id): weight in a mean}, such as its number of phones"""
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    spoken: dict[tuple[str, str], Spoken] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """{name: [(step, value)]}"""
    layers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.summary.get("run_id") or self.folder.name)

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.folder.name)

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(self.summary.get("strategies") or ())

    @property
    def how(self) -> tuple[str, ...]:
        """The strategies that say what trains; the others say what is kept."""
        return tuple(self.summary.get("how") or ())

    @property
    def backbone(self) -> str:
        return str(self.summary.get("backbone") or "")

    @property
    def seed(self) -> Any:
        return self.summary.get("seed")

    @property
    def status(self) -> str:
        return str(self.summary.get("status") or "unfinished")

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def error(self) -> str:
        """The last line that says why it failed; empty when nothing says so."""
        stated = str(self.summary.get("error") or "").strip()
        lines = [stated] if stated else [_last_line(p) for p in sorted(self.folder.glob("*.log"))]
        return next((line.splitlines()[-1] for line in lines if line), "")


@dataclass
class Study:
    """All runs of a study."""

    name: str
    folder: Path
    runs: list[Run]
    """finished, by name and seed"""
    unfinished: list[Run]
    """failed, killed or still at work"""

    @property
    def metrics(self) -> dict[str, MetricInfo]:
        return _merge_metrics(self.runs)

    @property
    def sets(self) -> list[str]:
        present = {s for run in self.runs for s, _ in run.scores if not s.startswith(PREFIXES)}
        present |= {s for run in self.runs for s in run.summary.get("sets") or {} if not s.startswith(PREFIXES)}
        return [s for s in SETS if s in present] + sorted(present - set(SETS))

    @property
    def spoken(self) -> dict[tuple[str, str], Spoken]:
        return {key: value for run in self.runs for key, value in run.spoken.items()}


def read_study(folder: Path) -> Study:
    """Raises UserError, naming the studies present, when the folder is no study or holds no finished run."""
    runs = [read_run(p) for p in _run_folders(folder)] if folder.is_dir() else []
    runs.sort(key=lambda r: (len(r.strategies), r.name, str(r.seed), r.id))
    finished = [r for r in runs if r.finished]
    if not runs:
        raise UserError(f"no study {folder.name!r} in {folder.parent}: {_studies(folder.parent)}; set study=<name>")
    if not finished:
        states = ", ".join(f"{r.id} {r.status}" for r in runs)
        raise UserError(f"no finished run in {folder} ({states}): run it again to finish it; {_studies(folder.parent)}")
    return Study(folder.name, folder, finished, [r for r in runs if not r.finished])


def _run_folders(study: Path) -> list[Path]:
    marks = ("summary.json", "config.yaml")
    return [p for p in sorted(study.iterdir()) if p.is_dir() and any((p / m).is_file() for m in marks)]


def _studies(outputs: Path) -> str:
    found = []
    for study in sorted(p for p in outputs.iterdir() if p.is_dir()) if outputs.is_dir() else []:
        if any(read_json(p).get("status") == "finished" for p in study.glob("*/summary.json")):
            found.append(study.name)
    return f"studies with finished runs: {', '.join(found)}" if found else "no study has a finished run yet"


def read_run(folder: Path) -> Run:
    """Every file but summary.json may be absent; a run without one is unfinished."""
    summary = read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    if not isinstance(summary, dict):
        raise UserError(f"{folder / 'summary.json'} is not a JSON object: delete it and run the command again")
    run = Run(folder, summary, settings(folder / "config.yaml"))
    if (folder / "provenance.json").is_file():
        run.provenance = read_json(folder / "provenance.json")
    if run.finished:
        _read_scores(run, folder / "scores.csv")
        run.curves = _curves(folder / "metrics.csv")
        run.layers = _layers(folder / "layers.json")
    return run


def _read_scores(run: Run, path: Path) -> None:
    if not path.is_file():
        return
    rows: list[Row] = []
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            rows.append(_row(row, path, number))
            said = plain(row["set"]), utterance_of(row)
            if said not in run.spoken:
                run.spoken[said] = Spoken(said[1], said[0], *(row.get(key) or "" for key in ("text", "emotion", "speaker")))
    for name, metrics in tabled(rows).items():
        for metric, found in metrics.items():
            known = {u: r for u, r in found.items() if math.isfinite(r["value"])}
            run.scores[name, metric] = {u: r["value"] for u, r in known.items()}
            run.goodness[name, metric] = {u: r["goodness"] for u, r in known.items() if math.isfinite(r["goodness"])}
            run.judges[name, metric] = judges_of(found.values())
            run.weights |= {(metric, u): r["weight"] for u, r in known.items()}
    for metric, row in {r["metric"]: r for r in rows}.items():
        judges = dict.fromkeys(judge for (_, m), found in run.judges.items() if m == metric for judge in found)
        run.metrics[metric] = MetricInfo(metric, row.get("unit") or "", row.get("better") or "", tuple(judges), bool(row.get("share")))


def _row(row: dict[str, str], path: Path, number: int) -> Row:
    for column in ("set", "utterance", "metric", "value"):
        if row.get(column) is None:
            raise UserError(f"{path}:{number}: no value in column {column!r}: delete the file and evaluate the run again")
    known = {key: _number(row.get(key) or default, path, number) for key, default in (("value", ""), ("weight", "1"))}
    return row | {"text": row.get("text") or "", "better": row.get("better") or ""} | known


def _number(text: str, path: Path, number: int) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError as error:
        raise UserError(f"{path}:{number}: {text!r} is no number: delete the file and evaluate the run again") from error


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                step = _number(row.get("step") or "", path, number)
                for name, text in row.items():
                    if name and name not in ("step", "epoch") and text and math.isfinite(step):
                        curves[name].append((int(step), _number(text, path, number)))
    return dict(curves)


def _layers(path: Path) -> list[dict[str, Any]]:
    """One entry a group of blocks, whether the file holds one, a list of them, or a mapping from group to entry."""
    if not path.is_file():
        return []
    value = read_json(path)
    if isinstance(value, dict) and "blocks" not in value:
        value = [{"group": k, **v} for k, v in value.items() if isinstance(v, dict)]
    entries = value if isinstance(value, list) else [value]
    return [e for e in entries if isinstance(e, dict) and e.get("blocks")]


def _merge_metrics(runs: list[Run]) -> dict[str, MetricInfo]:
    merged: dict[str, MetricInfo] = {}
    for run in runs:
        for name, info in {**_summary_metrics(run), **run.metrics}.items():
            known = merged.get(name, info)
            merged[name] = replace(info, judges=tuple(dict.fromkeys(known.judges + info.judges)))
    return merged


def _summary_metrics(run: Run) -> dict[str, MetricInfo]:
    return {
        name: MetricInfo(
            name,
            str(entry.get("unit") or ""),
            str(entry.get("better") or ""),
            ((str(entry.get("model") or ""), str(entry.get("version") or "")),),
        )
        for metrics in (run.summary.get("sets") or {}).values()
        for name, entry in metrics.items()
        if name not in run.metrics
    }


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
