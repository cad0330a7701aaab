"""What decoding.csv of a run knows: settings of decoding compared on the same clips, by the same judge."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ttsadapt.errors import UserError
from ttsadapt.metrics.rows import Row, goodness
from ttsadapt.reports.numbers import Estimate, interval, paired
from ttsadapt.reports.study import MetricInfo

RECORDINGS = "recordings"
"""stands for the setting where the recordings themselves are scored"""
Clip = tuple[str, str]
"""utterance and seed"""


class Value(NamedTuple):
    value: float
    goodness: float
    """more is better, whatever the metric's direction"""


@dataclass
class Compared:
    """One metric: {setting: {utterance: mean over seeds}}, every setting on the same utterances and seeds; RECORDINGS apart."""

    values: dict[str, dict[str, Value]]
    recordings: dict[str, Value]
    weights: dict[str, float]
    share: bool
    seeds: int
    """that every setting was spoken with"""

    def of(self, setting: str, which: str) -> dict[str, float] | None:
        found = self.recordings if setting == RECORDINGS else self.values.get(setting, {})
        return {u: getattr(v, which) for u, v in found.items()} or None


@dataclass
class Decoded:
    """All that is known of a run's settings on one set of sentences."""

    on: str
    settings: dict[str, dict[str, float]] = field(default_factory=dict)
    """by their text; the run's own among them"""
    default: str = ""
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)
    """by metric"""
    texts: dict[str, str] = field(default_factory=dict)
    seeds: int = 1

    def estimate(self, setting: str, metric: str) -> Estimate | None:
        """None for a setting that cannot be compared with the others."""
        found = self.compared[metric]
        values = found.of(setting, "value")
        return interval(values, found.weights, self.texts, found.share) if values else None

    def change(self, setting: str, metric: str) -> Estimate | None:
        """Against the run's own setting, paired by utterance; positive = better."""
        found = self.compared[metric]
        ours, own = (found.of(s, "goodness") for s in (setting, self.default))
        return paired(ours, own, found.weights, self.texts) if ours and own else None

    def best(self, metric: str) -> str | None:
        """The setting with the largest change; of equals the run's own, else the first."""
        order = sorted(self.compared[metric].values, key=lambda s: s != self.default)
        changes = {s: e.mean for s in order if (e := self.change(s, metric))}
        return max(changes, key=changes.__getitem__) if changes else None

    def texts_of(self, metric: str) -> int:
        """How many different texts every setting is compared on."""
        return len({self.texts[u] or u for u in self.compared[metric].values.get(self.default, {})})

    def left_out(self, metric: str) -> int:
        """Settings that this judge has not scored on the clips of the others."""
        return len(self.settings) - len(self.compared[metric].values)

    @property
    def varied(self) -> list[str]:
        """Knobs that have more than one value among what is compared."""
        ranked = {name for found in self.compared.values() for name in found.values}
        settings = [s for name, s in self.settings.items() if name in ranked]
        names = [n for n in (settings[0] if settings else ()) if all(n in s for s in settings)]
        return [n for n in names if len({s[n] for s in settings}) > 1]

    def told(self, setting: str) -> str:
        """ "temperature 0.6, top_k 20": the knobs that were varied."""
        return ", ".join(f"{n} {self.settings[setting][n]:g}" for n in self.varied) or "its own setting"


def read(path: Path) -> list[Decoded]:
    """One for every set of sentences that was spoken; [] where there is no such file."""
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row | {"value": float(row["value"]), "weight": float(row["weight"])} for row in csv.DictReader(file)]
        return [_decoded(on, [r for r in rows if r["set"] == on]) for on in dict.fromkeys(r["set"] for r in rows)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no table of settings ({error!r}): delete it and run `ttsadapt decode` again") from error


def _decoded(on: str, rows: Sequence[Row]) -> Decoded:
    spoken = [r for r in rows if r["setting"] != RECORDINGS]
    found = Decoded(on, texts={r["utterance"]: r["text"] for r in rows}, seeds=len({r["seed"] for r in spoken}))
    for r in spoken:
        found.settings.setdefault(r["setting"], json.loads(r["setting"]))
        found.default = r["setting"] if r["default"] == "1" else found.default
    for metric in dict.fromkeys(r["metric"] for r in rows):
        mine = [r for r in rows if r["metric"] == metric]
        judges = tuple(dict.fromkeys((r["model"], r["version"]) for r in mine))
        found.metrics[metric] = MetricInfo(metric, mine[-1]["unit"], mine[-1]["better"], judges)
        found.compared[metric] = _compared(mine, found.default)
    return found


def _compared(rows: Sequence[Row], default: str) -> Compared:
    """Of one metric's rows. A value that is not known counts for no setting."""
    known = [r for r in rows if math.isfinite(r["value"])]
    # The run's own setting is scored in every sweep: its judge is the one of today.
    judges = Counter((r["model"], r["version"]) for r in reversed(known) if r["setting"] == default)
    judge = judges.most_common(1)[0][0] if judges else None
    mine = [r for r in known if judge in (None, (r["model"], r["version"]))]
    ideals = {r["utterance"]: r for r in mine if r["setting"] == RECORDINGS}
    clips: dict[str, dict[Clip, Value]] = {}
    for r in mine:
        value = Value(r["value"], goodness(r, ideals.get(r["utterance"])))
        clips.setdefault(r["setting"], {})[r["utterance"], r["seed"]] = value
    recordings = clips.pop(RECORDINGS, {})
    names, common = shared({name: values.keys() for name, values in clips.items()}, default)
    said = {u for u, _ in common}
    values = {name: _averaged({c: clips[name][c] for c in common}) for name in clips if name in names}
    weights = {r["utterance"]: r["weight"] for r in mine}
    ceiling = _averaged({c: v for c, v in recordings.items() if c[0] in said})
    return Compared(values, ceiling, weights, any(r.get("share") == "1" for r in mine), len({seed for _, seed in common}))


def _averaged(clips: Mapping[Clip, Value]) -> dict[str, Value]:
    seeds: dict[str, list[Value]] = {}
    for (utterance, _), value in sorted(clips.items()):
        seeds.setdefault(utterance, []).append(value)
    return {u: Value(*(sum(v) / len(v) for v in zip(*several))) for u, several in seeds.items()}


def shared(clips: Mapping[str, AbstractSet[Clip]], own: str) -> tuple[set[str], set[Clip]]:
    """The settings that can be ranked and the clips that all of them have, the setting `own` among them.

    They are so chosen that as many sentences as possible are compared with `own`, over all settings; then as many seeds of them. A few
    sentences of an earlier, shorter sweep do not shrink all others, one clip on which a setting has no value does not cost the setting,
    and one seed of ten settings tells more than three of five.
    """
    names, common, most = [own], set(clips.get(own, ())), (0, 0)
    best = (set(names), common) if common else (set[str](), common)
    for name in sorted(clips.keys() - {own}, key=lambda n: (-len(common & clips[n]), n)) if common else ():
        names, common = [*names, name], common & clips[name]
        pairs = (len(names) - 1) * len({u for u, _ in common}), (len(names) - 1) * len(common)
        if common and pairs >= most:
            best, most = (set(names), common), pairs
    return best
