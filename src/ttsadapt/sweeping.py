"""Settings of decoding compared on a finished run: every one speaks the same sentences with the same seeds, and is scored."""

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.backbones.base import Backbone
from ttsadapt.backbones.knobs import decoding, refuse_settings, settings
from ttsadapt.bars import Bar
from ttsadapt.config.overrides import put_onto
from ttsadapt.errors import ConfigError
from ttsadapt.evaluation import score_set
from ttsadapt.files import digest, replacing
from ttsadapt.finished import restored
from ttsadapt.metrics.available import assembled
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.rows import Row
from ttsadapt.metrics.sidecar import facts
from ttsadapt.metrics.subset import subset
from ttsadapt.reports.decoded import RECORDINGS
from ttsadapt.scoring import judge_needs
from ttsadapt.speaking import clock, refuse_seeds, speak
from ttsadapt.trainer import device_of

COLUMNS = (
    *("set", "setting", "default", "seed", "utterance", "metric", "value", "unit", "better", "model", "version", "text", "weight", "share"),
)
Setting = dict[str, float]


def sweep(cfg: DictConfig, folder: Path, asked: Sequence[str]) -> None:
    """Leaves decoding.csv (a row per setting x seed x utterance x metric), decoding.json and decoding.png in the run's `folder`.

    `asked`: the overrides, which say whether the run's own metrics and seed are to be used. The run's other files stay as they are.
    """
    grid = {name: value if isinstance(value, list) else [value] for name, value in _given(cfg).items()}
    if not grid:
        raise ConfigError("decoding has no value: give what is to be compared, such as decoding.temperature=0.6,0.8,1.0")
    assembly, learner = restored(folder, device_of(cfg.trainer.accelerator, cfg.trainer.devices))
    for setting in combinations(grid):
        refuse_settings(learner.backbone, setting)
    for group in ("evaluation", "metric"):
        put_onto(assembly.cfg, cfg, asked, group)
    refuse_seeds(assembly.cfg.evaluation.seeds)
    if not assembly.cfg.metric:
        raise ConfigError("metric=[] compares nothing: name metrics, such as metric=[mcd,f0]")
    metrics = assembled(assembly.cfg.metric)
    if not metrics:
        raise ConfigError(f"metric=[{','.join(assembly.cfg.metric)}]: none of them can be computed on this machine")
    ensure(*judge_needs(assembly, metrics))
    Sweep(assembly, learner.backbone, metrics, cfg.sentences, cfg.limit, folder).run(combinations(grid), cfg.seeds)
    from ttsadapt.reports.decoding import report

    print("\n".join(report(folder)))


def _given(cfg: DictConfig) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(cfg.decoding, resolve=True)
    return {name: value for name, value in found.items() if value is not None}


def combinations(grid: Mapping[str, Sequence[float]]) -> list[Setting]:
    """Every value with every other."""
    return [dict(zip(grid, values)) for values in product(*grid.values())]


class Sweep:
    """What has been scored of a run, and what is still to be."""

    def __init__(
        self, assembly: Assembly, backbone: Backbone, metrics: Mapping[str, UtteranceMetric], on: str, limit: int | None, folder: Path
    ) -> None:
        """`on`: "<set>.<split>", of which `limit` sentences are spoken."""
        self.assembly, self.backbone, self.metrics, self.on, self.folder = assembly, backbone, metrics, on, folder
        self.utterances = subset(assembly.utterances(on), limit)
        self.path = folder / "decoding.csv"
        self.rows = read_rows(self.path)
        self.first = int(assembly.cfg.evaluation.seeds[0])
        for metric in metrics.values():
            metric.open(assembly.judged, assembly.cache)  # its version is known from now on

    def run(self, wanted: Sequence[Setting], seeds: int) -> None:
        """Score the recordings, the run's own setting and every one of `wanted`; what is in decoding.csv already is skipped."""
        self._score(RECORDINGS, False, 0, {u.id: u.audio for u in self.utterances}, self._lacking(RECORDINGS, 0))
        own = settings(self.backbone)
        told = {text(own | setting): own | setting for setting in [{}, *wanted]}
        todo = [(name, seed) for name in told for seed in range(self.first, self.first + seeds) if self._lacking(name, seed)]
        if skipped := len(told) * seeds - len(todo):
            print(f"{skipped} of {len(told) * seeds} settings and seeds are scored already in {self.path}", flush=True)
        for name, seed in Bar(todo, "settings", unit="setting"):
            lacking = self._lacking(name, seed)
            with decoding(self.backbone, told[name]):
                audio = self._speech(name, seed, [metric for metric in lacking.values() if metric.timed])
            self._score(name, name == text(own), seed, audio, lacking)

    def _lacking(self, name: str, seed: int) -> dict[str, UtteranceMetric]:
        """The metrics by which not all sentences are scored, of those that ask for what is spoken so.

        The clock runs with the first seed only, as in a run; what the recordings were spoken with is not known.
        """
        mine = [r for r in self.rows if (r["set"], r["setting"], r["seed"]) == (self.on, name, str(seed))]
        asked = {
            key: metric
            for key, metric in self.metrics.items()
            if not (metric.spoken_only if name == RECORDINGS else metric.timed and seed != self.first)
        }
        have = {key: {r["utterance"] for r in mine if _by(r, key, metric)} for key, metric in asked.items()}
        return {key: metric for key, metric in asked.items() if self._wanted(metric) - have[key]}

    def _wanted(self, metric: UtteranceMetric) -> set[str]:
        return {u.id for u in subset(self.utterances, metric.limit)}

    def _speech(self, name: str, seed: int, timed: Sequence[UtteranceMetric]) -> dict[str, Path]:
        """Spoken already for other metrics, or spoken now: `decoding/<setting>/<seed>/<utterance>.wav`; against the clock for `timed`."""
        place = self.folder / "decoding" / digest([self.on, name]) / str(seed)
        there: dict[str, Path] = {u.id: place / f"{u.id}.wav" for u in self.utterances}
        noted = facts(place)  # after the last clip: a kill between the two leaves clips of which nothing is known
        if not all(path.is_file() and path.stem in noted for path in there.values()):
            speak(self.backbone, self.utterances, place, name, seed)
        if clocked := set().union(*map(self._wanted, timed)):
            clock(self.backbone, [u for u in self.utterances if u.id in clocked], place, seed)
        return there

    def _score(self, name: str, default: bool, seed: int, audio: Mapping[str, Path], metrics: Mapping[str, UtteranceMetric]) -> None:
        if not metrics:
            return
        title = f"{RECORDINGS}/{self.on}" if name == RECORDINGS else name
        new = score_set(metrics, title, audio, self.utterances, self.assembly.judged, self.assembly.cache)
        about = {"set": self.on, "setting": name, "default": int(default), "seed": str(seed)}
        again = {(r["metric"], r["utterance"]) for r in new}
        mine = (self.on, name, str(seed))
        kept = [r for r in self.rows if (r["set"], r["setting"], r["seed"]) != mine or (r["metric"], r["utterance"]) not in again]
        self.rows = [*kept, *({c: str(v) for c, v in (row | about).items() if c in COLUMNS} for row in new)]
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _by(row: Row, key: str, metric: UtteranceMetric) -> bool:
    """Whether the row holds what `metric` would say now. On what a clock ran is known only when it has."""
    return (row["metric"], row["version"]) == (key, str(metric.version)) and (metric.timed or row["model"] == metric.model)


def text(setting: Setting) -> str:
    """One spelling a setting: 1 and 1.0 are the same."""
    return json.dumps({name: float(value) for name, value in setting.items()}, sort_keys=True)


def read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
