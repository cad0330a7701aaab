"""The matrix R of a sequence: every set scored by the untuned model and after every stage."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from ttsadapt.analysis.forgetting import DEFINITIONS, Scores, plain, with_intervals
from ttsadapt.artifacts import Artifact, ensure
from ttsadapt.assembly import Assembly
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.evaluation import mean_of
from ttsadapt.files import digest, replacing
from ttsadapt.learner import Learner
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.intervals import Interval, paired_interval
from ttsadapt.metrics.rows import Row, by_utterance, other_judge, read_scores, write_scores
from ttsadapt.scoring import sentences, spoken_scores
from ttsadapt.trainer import device_of

UNTUNED = "untuned"


@dataclass(eq=False)
class Model:
    """A row: the untuned model, or what a stage left."""

    title: str
    cfg: DictConfig
    folder: Path | None
    """of its run; None: there is no untuned model, as the first stage starts from random weights"""

    @cached_property
    def assembly(self) -> Assembly:
        return Assembly(self.cfg)

    @cached_property
    def rows(self) -> list[Row]:
        return [] if self.folder is None else read_scores(self.folder / "scores.csv")


@dataclass(eq=False)
class Task:
    """A column: a test set of one stage's data."""

    title: str
    set: str
    cfg: DictConfig
    """of the stage"""
    run: Path
    """its folder: there lie the scores of the recordings"""
    learnt: bool
    """whether it is what the stage learns; else it is a set beside, such as the source"""

    @cached_property
    def assembly(self) -> Assembly:
        return Assembly(self.cfg)

    @cached_property
    def sentences(self) -> list[Utterance]:
        return sentences(self.assembly, self.set)

    @cached_property
    def judged(self) -> list[Any]:
        """By which judges its sentences are scored now, and how."""
        corpus, cache = self.assembly.judged, self.assembly.cache
        return [[name, metric.limit, metric.identity(corpus, cache)] for name, metric in assembled(self.cfg.metric).items()]

    @cached_property
    def references(self) -> list[Row]:
        """Of the recordings, and of them through the codec, where the stage has scored this set."""
        kinds = (f"recordings/{self.set}", f"resynthesis/{self.set}")
        return [r for r in read_scores(self.run / "scores.csv") if r["set"] in kinds]

    @cached_property
    def floor(self) -> list[Row]:
        """Of the model that this stage started from; [] where it has spoken with other seeds since."""
        kind = f"base/{self.set}"
        rows = [r | {"set": self.set} for r in read_scores(self.run / "scores.csv") if r["set"] == kind]
        return rows if self.as_often(rows) else []

    def as_often(self, rows: Sequence[Row]) -> bool:
        """Are these of speech with the seeds that this column is about? `ttsadapt evaluate` may have changed a run's."""
        spoken = {r["seed"] for r in rows if r["set"] == self.set}
        return not spoken or spoken == {str(seed) for seed in self.cfg.evaluation.seeds}

    def scored_by(self, model: Model) -> bool:
        """Whether the model's own run has these very scores."""
        there, here = model.assembly, self.assembly
        same = there.cfg.metric == here.cfg.metric and there.cfg.evaluation.seeds == here.cfg.evaluation.seeds
        return (
            same
            and self.set in there.cfg.evaluation.sets
            and there.corpus.folder == here.corpus.folder
            and sentences(there, self.set) == self.sentences
            and self.as_often(model.rows)
        )


class Elsewhere(Artifact):
    """A model's speech for a set of another run's data, and its scores: `wavs/<utterance id>.wav` and `scores.csv`."""

    def __init__(self, model: Model, task: Task) -> None:
        assert model.folder is not None
        self.model, self.task = model, task
        said = [task.assembly.corpus.folder.name, task.set, [u.id for u in task.sentences]]
        self.folder = model.folder / "elsewhere" / digest([said, task.judged, list(task.cfg.evaluation.seeds)])

    def build(self, folder: Path) -> None:
        trainer = self.model.cfg.trainer
        learner, data = _learner(self.model.folder, device_of(trainer.accelerator, trainer.devices)), self.task.assembly
        # A voice that the model has not heard of yet is told to it, as it would be to any user's: its weights stay.
        voices = [u for n in data.names() if n.endswith(".train") for u in data.utterances(n)]
        learner.backbone.frontend.enroll(voices)
        for strategy in learner.strategies.values():
            strategy.enroll(voices)  # type: ignore[operator]
        title = f"{self.task.title} by {self.model.title}"
        metrics, seeds = assembled(self.task.cfg.metric), list(self.task.cfg.evaluation.seeds)
        said = spoken_scores(learner.backbone, self.task.sentences, folder / "wavs", self.task.set, metrics, seeds, data, title)
        write_scores(folder / "scores.csv", said)


@lru_cache(maxsize=1)
def _learner(run: Path, device: torch.device) -> Learner:
    from ttsadapt.finished import restored

    return restored(run, device)[1]


@dataclass
class Cell:
    """Rows of one model on one task, and where its speech lies."""

    rows: list[Row]
    wavs: Path | None

    def of(self, metric: str, ideals: Mapping[str, Row] | None = None) -> dict[str, Row]:
        return by_utterance([r for r in self.rows if r["metric"] == metric], ideals)


class Matrix:
    """All cells, from the models' own runs where they are there, computed where they are not."""

    def __init__(self, models: Sequence[Model], tasks: Sequence[Task]) -> None:
        self.models, self.tasks = list(models), list(tasks)
        self.cells = [[self._cell(i, j) for j in range(len(self.tasks))] for i in range(len(self.models))]
        _learner.cache_clear()

    def _cell(self, i: int, j: int) -> Cell:
        model, task = self.models[i], self.tasks[j]
        if model.folder is None:
            return Cell([], None)
        if task.scored_by(model):
            return Cell([r for r in model.rows if r["set"] == task.set], model.folder / "wavs" / task.set)
        if task.learnt and i == j and (floor := task.floor):  # the stage's own run has compared itself with the model before it
            return Cell(floor, None)
        ensure(other := Elsewhere(model, task))
        return Cell(read_scores(other.folder / "scores.csv"), other.folder / "wavs")

    @property
    def metrics(self) -> dict[str, Row]:
        """A row of each metric, for what it says of the metric."""
        return {r["metric"]: r for line in reversed(self.cells) for cell in line for r in cell.rows}

    def scores(self, column: int, metric: str) -> Scores:
        """Of a task, turned so that higher is better; NaN where not the judge of the last row has judged."""
        task = self.tasks[column]
        ideal = by_utterance([r for r in task.references if r["metric"] == metric and r["set"].startswith("recordings/")])
        lines = [line[column].of(metric, ideal) for line in self.cells]
        rows, apart = lines[-1], self.apart(column, metric)
        if any(line and line.keys() != rows.keys() for line in lines):
            raise DataError(
                f"{task.title}: {metric} was not scored on the same sentences after every stage: delete `elsewhere` in the stages' runs"
            )
        values = [[line[u]["goodness"] if line and i not in apart else np.nan for u in rows] for i, line in enumerate(lines)]
        weights, texts = ([r[key] for r in rows.values()] for key in ("weight", "text"))
        return Scores(np.array(values).reshape(len(lines), len(rows)), np.array(weights, float), texts)

    def apart(self, column: int, metric: str) -> dict[int, str]:
        """{row: why it cannot be paired with the last one}"""
        lines = [line[column].of(metric).values() for line in self.cells]
        names = [f"{self.tasks[column].title} after {model.title}" for model in self.models]
        found = {i: other_judge(line, lines[-1], (names[i], names[-1])) for i, line in enumerate(lines) if line}
        return {i: why for i, why in found.items() if why}

    def summary(self) -> dict[str, Any]:
        """matrix.json: `rows`, `tasks`, `beside`, `metrics` {metric: {unit, better, R, figures, lost, apart}} and `definitions`. `apart`:
        what was judged by others than the last row, and is no part of the figures."""
        learnt = [i for i, task in enumerate(self.tasks) if task.learnt]
        beside = [i for i, task in enumerate(self.tasks) if not task.learnt]
        told: dict[str, Any] = {}
        for metric, row in self.metrics.items():
            scores = [self.scores(i, metric) for i in range(len(self.tasks))]
            told[metric] = {
                "unit": row["unit"],
                "better": row["better"],
                "R": [[mean_of(cell.of(metric)) for cell in line] for line in self.cells],
                "figures": plain(with_intervals([scores[i] for i in learnt])),
                "lost": {self.tasks[i].title: plain(lost(scores[i]))["lost"] for i in beside},
                "apart": [why for i in range(len(self.tasks)) for why in self.apart(i, metric).values()],
            }
        return {
            "rows": [model.title for model in self.models],
            "tasks": [self.tasks[i].title for i in learnt],
            "beside": [self.tasks[i].title for i in beside],
            "metrics": told,
            "definitions": DEFINITIONS | {"lost": "R[0, set] - R[T, set] of a set beside, paired by utterance; positive = forgotten"},
        }

    def write_csv(self, path: Path, summary: Mapping[str, Any]) -> None:
        """One line a cell: metric, after, set, mean, low, high, n, unit, better."""
        names = [task.title for task in self.tasks]
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["metric", "after", "set", "mean", "low", "high", "n", "unit", "better"])
            for metric, found in summary["metrics"].items():
                for after, line in zip(summary["rows"], found["R"]):
                    for name, cell in zip(names, line):
                        numbers = [cell[k] for k in ("mean", "low", "high", "n")] if cell else ["", "", "", 0]
                        writer.writerow([metric, after, name, *numbers, found["unit"], found["better"]])


def lost(scores: Scores) -> dict[str, Interval]:
    """How much worse the last row is than the first, in pairs."""
    return {"lost": paired_interval(scores.values[0], scores.values[-1], weights=scores.weights, groups=scores.groups)}


def columns(names: Sequence[str], stages: Sequence[DictConfig], runs: Sequence[Path]) -> list[Task]:
    """The set that each stage learns, then what the first stage scores beside it."""
    learnt = [Task(name, cfg.train_on, cfg, run, True) for name, cfg, run in zip(names, stages, runs)]
    return [*learnt, *(Task(name, name, stages[0], runs[0], False) for name in stages[0].evaluation.sets if name != stages[0].train_on)]
