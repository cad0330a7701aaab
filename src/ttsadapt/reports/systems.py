"""Systems: what a row of a table stands for. Runs that differ in nothing but their seed are one system."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ttsadapt.errors import UserError
from ttsadapt.files import inside
from ttsadapt.metrics.rows import Judges
from ttsadapt.reports.numbers import Estimate, interval, paired
from ttsadapt.reports.settings import counting, differences
from ttsadapt.reports.study import MetricInfo, Run, Study


@dataclass(eq=False)
class System:
    """A row: the ceiling, the vocoder's ceiling, the floor, or an adapted model."""

    label: str
    kind: str
    """"ceiling", "vocoder", "floor" or "adapted" """
    sources: list[tuple[Run, str]]
    """runs and the prefix of the sets that hold this system's scores"""
    backbone: str = ""
    strategies: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    """those of them that say what trains; the others say what is kept"""
    _values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    @property
    def adapted(self) -> bool:
        return self.kind == "adapted"

    @property
    def runs(self) -> list[Run]:
        return [run for run, _ in self.sources]

    @property
    def preserving(self) -> bool:
        return len(self.how) < len(self.strategies)

    @cached_property
    def training(self) -> tuple[object, ...]:
        """How it was trained, whatever was preserved: the backbone, what trains, and every setting but those of what preserves."""
        kept = [f"strategy.{name}" for name in self.strategies if name not in self.how]
        settings = self.runs[0].settings.items()
        return self.backbone, self.how, frozenset((k, v) for k, v in settings if not any(f"{k}.".startswith(f"{own}.") for own in kept))

    def values(self, set_: str, metric: str) -> dict[str, float]:
        """Per utterance, averaged over runs: seeds are averaged before anything is resampled."""
        if (set_, metric) not in self._values:
            self._values[set_, metric] = _averaged([run.scores.get((prefix + set_, metric), {}) for run, prefix in self.sources])
        return self._values[set_, metric]

    def goodness(self, set_: str, metric: str, judges: Judges | None = None) -> dict[str, float]:
        """As `values`, turned so that more is better; what is best near the reference counts its distance to the recording. Only of
        runs that `judges` have judged, None: of all."""
        kept = [(run, (prefix + set_, metric)) for run, prefix in self.sources]
        return _averaged([run.goodness.get(key, {}) for run, key in kept if judges is None or run.judges.get(key) == judges])

    def judges(self, set_: str, metric: str) -> Counter[Judges]:
        """How many runs were judged by whom."""
        return Counter(found for run, prefix in self.sources if (found := run.judges.get((prefix + set_, metric))))

    def weights(self, metric: str) -> dict[str, float]:
        """By utterance; all runs weigh an utterance alike."""
        return {id_: weight for run in self.runs for (name, id_), weight in run.weights.items() if name == metric}

    def texts(self, set_: str) -> dict[str, str]:
        """By utterance: what is drawn as a whole when an interval is estimated."""
        return {id_: said.text for run in self.runs for (kind, id_), said in run.spoken.items() if kind == set_}

    def share(self, metric: str) -> bool:
        return any(run.metrics[metric].share for run in self.runs if metric in run.metrics)

    def estimate(self, set_: str, metric: str) -> Estimate | None:
        """What the runs' summaries agree on; where seeds differ, the mean over utterances after averaging the seeds."""
        stated = {e for run, prefix in self.sources if (e := _stated(run, prefix + set_, metric))}
        if len(stated) == 1:
            return stated.pop()
        return interval(self.values(set_, metric), self.weights(metric), self.texts(set_), self.share(metric))

    def spread(self, set_: str, metric: str) -> float | None:
        """Standard deviation over seeds of the run's mean; None for a single run."""
        means = [e.mean for run, prefix in self.sources if (e := _stated(run, prefix + set_, metric))]
        return float(np.std(means, ddof=1)) if self.adapted and len(means) > 1 else None

    def cost(self, key: str) -> float | None:
        """A number of summary.json, averaged over seeds; None where no run states it."""
        if not self.adapted:
            return None
        found = [v for run in self.runs if isinstance(v := run.summary.get(key), int | float) and math.isfinite(v)]
        return sum(found) / len(found) if found else None

    def drift(self, set_: str) -> float | None:
        """KL from the untuned model, nats a position."""
        kl = [v for run in self.runs if isinstance(v := (run.summary.get("kl") or {}).get(set_), int | float)]
        return sum(kl) / len(kl) if self.adapted and kl else None

    def wav(self, set_: str, utterance: str) -> Path | None:
        for run, prefix in self.sources:
            try:
                path = inside(run.folder / "wavs", f"{prefix}{set_}/{utterance}.wav")
            except UserError:  # an id that climbs out of the folder is not looked for
                continue
            if path.is_file():
                return path
        return None


def _averaged(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    gathered: dict[str, list[float]] = defaultdict(list)
    for values in found:
        for id_, value in values.items():
            gathered[id_].append(value)
    return {k: sum(v) / len(v) for k, v in gathered.items()}


def _stated(run: Run, set_: str, metric: str) -> Estimate | None:
    return Estimate.read(((run.summary.get("sets") or {}).get(set_) or {}).get(metric))


class Systems(list[System]):
    """All rows of a study: references first, then adapted models from few strategies to many."""

    def __init__(self, study: Study) -> None:
        self.study = study
        backbones = sorted({r.backbone for r in study.runs})
        super().__init__([System("recordings", "ceiling", [(r, "recordings/") for r in study.runs])])
        for backbone in backbones:
            self += self._of_backbone(backbone, f" · {backbone}" if len(backbones) > 1 else "")
        self[:] = [s for s in self if s.adapted or any(_has(run, prefix) for run, prefix in s.sources)]

    def _of_backbone(self, backbone: str, suffix: str) -> Iterable[System]:
        runs = [r for r in self.study.runs if r.backbone == backbone]
        untuned = [(r, "") for r in runs if not r.strategies]
        yield System(f"resynthesis{suffix}", "vocoder", [(r, "resynthesis/") for r in runs], backbone)
        yield System(f"base{suffix}", "floor", [*untuned, *((r, "base/") for r in runs)], backbone)
        for label, group in _seed_groups([r for r in runs if r.strategies]):
            yield System(label + suffix, "adapted", [(r, "") for r in group], backbone, group[0].strategies, group[0].how)

    @cached_property
    def adapted(self) -> list[System]:
        return [s for s in self if s.adapted]

    def of_kind(self, kind: str, backbone: str) -> System | None:
        return next((s for s in self if s.kind == kind and s.backbone in ("", backbone)), None)

    def improvement(self, metric: MetricInfo, set_: str, ours: System, other: System) -> Estimate | None:
        """How much better `ours` is than `other`, paired by utterance; positive = better, whatever the metric's direction. Of runs that
        the same judges have judged, None where there are none."""
        shared = ours.judges(set_, metric.name) & other.judges(set_, metric.name)
        if not shared:
            return None
        (judges, _), *_ = shared.most_common(1)
        after, before = (s.goodness(set_, metric.name, judges) for s in (ours, other))
        return paired(after, before, ours.weights(metric.name), ours.texts(set_))

    def change(self, kind: str, metric: MetricInfo, system: System) -> Estimate | None:
        """`kind` "gain" (on target, positive = better) or "forgetting" (on source, positive = worse), against the base."""
        stated = {e for run in system.runs if (e := Estimate.read((run.summary.get(kind) or {}).get(metric.name)))}
        if len(stated) == 1:
            return stated.pop()
        base = self.of_kind("floor", system.backbone)
        if base is None:
            return None
        ours, other = (system, base) if kind == "gain" else (base, system)
        return self.improvement(metric, "target" if kind == "gain" else "source", ours, other)

    def preserved_pairs(self) -> list[tuple[System, System]]:
        """(without, with): adapted alike but for what preserves."""
        return [
            (plain, kept)
            for plain in self.adapted
            for kept in self.adapted
            if not plain.preserving and kept.preserving and plain.training == kept.training
        ]


def _has(run: Run, prefix: str) -> bool:
    plain = (s for s, _ in run.scores) if run.scores else iter(run.summary.get("sets") or {})
    return any(s.startswith(prefix) for s in plain)


def _seed_groups(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Runs that differ in nothing but their seed; the label says what sets two groups of one name apart."""
    by_name: dict[str, dict[frozenset[tuple[str, str]], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_name[run.name][frozenset(run.settings.items())].append(run)
    labelled = []
    for name, groups in by_name.items():
        apart = differences([group[0].settings for group in groups.values()], brief=True)
        told = sorted(zip(apart, groups.values()), key=lambda each: counting(each[0]))
        labelled += [(f"{name} ({own})" if own else name, group) for own, group in told]
    return labelled
