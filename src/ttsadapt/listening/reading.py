"""From the files of answers to figures: who counts, means, differences, agreement, and how far automatic metrics agree."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Rejected
from ttsadapt.errors import UserError
from ttsadapt.files import write_json, write_text
from ttsadapt.listening.agreement import alpha
from ttsadapt.listening.correlation import correlations
from ttsadapt.listening.intervals import ALIKE, Crossed
from ttsadapt.listening.key import Key, read_keys
from ttsadapt.listening.results import Answered, gather, key_of
from ttsadapt.metrics.intervals import wilson
from ttsadapt.reports.numbers import Estimate
from ttsadapt.reports.systems import Systems


@dataclass(frozen=True)
class Rule:
    """Which listeners count."""

    pass_share: float
    """of the checks: at least so much must be passed"""
    repeat_share: float
    """of the repeated trials: at least so much must come out as before"""
    within: float
    """how far the value of a repeated trial may be from the first"""

    def passed(self, session: Answered, key: Key) -> tuple[int, int, int, int]:
        """(checks passed, of how many, repeats as before, of how many)."""
        known = [
            session.answers[code] in trial.accepted
            for code, trial in key.trials.items()
            if trial.accepted is not None and code in session.answers
        ]  # fmt: skip
        again = [
            abs(trial.worth[session.answers[code]] - trial.worth[session.answers[trial.repeats]]) <= self.within
            for code, trial in key.trials.items()
            if trial.repeats is not None and code in session.answers
        ]
        return sum(known), len(known), sum(again), len(again)

    def keeps(self, session: Answered, key: Key) -> bool:
        passed, checks, again, repeats = self.passed(session, key)
        return passed >= self.pass_share * checks - 1e-9 and again >= self.repeat_share * repeats - 1e-9

    def __str__(self) -> str:
        again = f"{100 * self.repeat_share:.0f} % of what was repeated, within {self.within:g}"
        return f"passed at least {100 * self.pass_share:.0f} % of the attention checks and {again}"


@dataclass(frozen=True)
class Rated:
    """One answer that counts."""

    listener: str
    item: str
    set: str
    utterance: str
    value: float

    @property
    def sentence(self) -> str:
        return f"{self.set}/{self.utterance}"


def read(systems: Systems, folder: Path, places: Sequence[Path], rule: Rule) -> str:
    """See `ListeningTest.read`. UserError when no answer is usable."""
    from ttsadapt.listening.told import console, markdown, plot, to_csv, to_ratings

    keys = read_keys(folder)
    key = key_of(places, keys)
    sessions, refused = gather(places, key, {k.page for k in keys})
    kept = [s for s in sessions if rule.keeps(s, key)]
    if not kept:
        raise UserError(_nothing(sessions, refused, rule))
    found = outcome(systems, key, sessions, kept, refused, rule)
    write_json(folder / "listening.json", found)
    write_text(folder / "table.csv", to_csv(found))
    write_text(folder / "ratings.csv", to_ratings(key, sessions, kept))
    write_text(folder / "table.md", markdown(found))
    plot(found, folder / "plot.png")
    before = [] if key is keys[0] else [f"these are answers to page {key.page}, which was built before the one that is there now"]
    written = f"written to {folder}: table.csv, table.md, ratings.csv, listening.json, plot.png"
    return "\n".join([*(r.told for r in refused), *before, console(found), written])


def _nothing(sessions: Sequence[Answered], refused: Sequence[Rejected], rule: Rule) -> str:
    if sessions:
        return f"none of {len(sessions)} listeners passes the attention checks ({rule}): lower page.rule.pass_share or ask others"
    why = "; ".join(f"{n} {kind}" for kind, n in Counter(r.kind for r in refused).items())
    example = f", such as {refused[0].told}" if refused else ""
    return f"no usable answers in results= ({why or 'no .json file there'}){example}"


def ratings(key: Key, sessions: Sequence[Answered]) -> list[Rated]:
    return [
        Rated(s.listener, trial.item, trial.set, trial.utterance, trial.worth[answer])
        for s in sessions
        for code, answer in s.answers.items()
        if (trial := key.trials[code]).counts
    ]


def outcome(
    systems: Systems, key: Key, sessions: Sequence[Answered], kept: Sequence[Answered], refused: Sequence[Rejected], rule: Rule
) -> dict[str, Any]:
    """What listening.json holds; numbers that are not known are None."""
    rated, everyone = ratings(key, kept), ratings(key, sessions)
    crossed, unscreened = _crossed(rated), _crossed(everyone)
    items = [i for i in key.items if any(r.item == i for r in rated)]
    units = defaultdict(list)
    for r in rated:
        units[r.item, r.sentence].append(r.value)
    return {
        "name": key.name,
        "title": key.settings.get("title", key.name),
        "page": key.page,
        "files": sorted({Path(s.where).name for s in sessions} | {Path(r.where).name for r in refused}),
        "unit": key.unit,
        "chance": key.chance,
        "kinds": key.kinds,
        "listeners": len(kept),
        "ratings": len(rated),
        "sentences": len({r.sentence for r in rated}),
        "dropped": len(sessions) - len(kept),
        "rule": str(rule),
        "refused": dict(Counter(r.kind for r in refused)),
        "checks": {s.listener: list(rule.passed(s, key)) for s in sessions},
        "questions": _counted(kept),
        "means": {i: _mean(crossed, i, key) for i in items},
        "means_of_everyone": {i: _mean(unscreened, i, key) for i in items},
        "differences": [] if key.chance is not None else _differences(crossed, items, key),
        "exact": {} if key.chance is None else {i: exact(rated, i, key.chance) for i in items},
        "alpha": _number(alpha(units.values())),
        "alpha_units": sum(len(u) > 1 for u in units.values()),
        "automatic": _automatic(systems, key, items, {r.item: {x.sentence for x in rated if x.item == r.item} for r in rated}),
        "labels": {m.name: f"{m.label} {m.arrow} {m.unit}".strip() for m in systems.study.metrics.values()},
        "correlations": correlations(systems, key, {u: sum(v) / len(v) for u, v in units.items()}),
        "loudness": key.loudness,
    }


def _crossed(rated: Sequence[Rated]) -> Crossed:
    return Crossed([r.listener for r in rated], [r.sentence for r in rated], [r.item for r in rated], [r.value for r in rated])


def plain(estimate: Estimate, crossed: Crossed) -> dict[str, Any]:
    """mean, low, high, n; `why` there is no interval, where there is none."""
    return {k: _number(v) for k, v in estimate._asdict().items()} | {"why": crossed.unknown if math.isnan(estimate.low) else ""}


def _mean(crossed: Crossed, item: str, key: Key) -> dict[str, Any]:
    """Of hits and misses that are all alike, the interval is Wilson's: there is something to be said of them."""
    found = crossed.mean(item)
    if key.chance is not None and math.isnan(found.low) and crossed.unknown == ALIKE:
        low, high = wilson(100 * found.mean, found.n)
        found = found._replace(low=low / 100, high=high / 100)
    return plain(found, crossed)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _differences(crossed: Crossed, items: Sequence[str], key: Key) -> list[dict[str, Any]]:
    """Every pair once; tests of pairs have theirs in the means already."""
    if not key.kinds:
        return []
    pairs = [(a, b) for n, b in enumerate(items) for a in items[n + 1 :]]
    return [{"item": a, "other": b} | plain(crossed.difference(a, b), crossed) for a, b in pairs]


def exact(rated: Sequence[Rated], item: str, chance: float) -> dict[str, Any]:
    """Share of ones with Wilson's interval and the exact two-sided binomial test against `chance`, as if all answers were independent; and
    of each listener alone."""
    from scipy.stats import binomtest

    def tested(values: Sequence[float]) -> dict[str, Any]:
        test = binomtest(int(sum(values)), len(values), chance)
        wilson = test.proportion_ci(method="wilson")
        return {
            "share": sum(values) / len(values),
            "low": float(wilson.low),
            "high": float(wilson.high),
            "p": float(test.pvalue),
            "n": len(values),
        }

    mine = [r for r in rated if r.item == item]
    listeners = sorted({r.listener for r in mine})
    return tested([r.value for r in mine]) | {"listeners": {who: tested([r.value for r in mine if r.listener == who]) for who in listeners}}


def _counted(sessions: Sequence[Answered]) -> dict[str, dict[str, int]]:
    asked = dict.fromkeys(name for s in sessions for name in s.questions)
    return {name: dict(Counter(s.questions.get(name, "") for s in sessions)) for name in asked}


def _automatic(systems: Systems, key: Key, items: Sequence[str], heard: Mapping[str, set[str]]) -> dict[str, dict[str, float]]:
    """{metric: {system: mean over the sentences that were heard}}, of items that are systems."""
    by_label = {s.label: s for s in systems}
    table: dict[str, dict[str, float]] = {}
    for name in systems.study.metrics:
        for item in (i for i in items if i in key.kinds and i in by_label):
            pairs = (sentence.split("/", 1) for sentence in sorted(heard[item]))
            known = [v for set_, utterance in pairs if (v := by_label[item].values(set_, name).get(utterance)) is not None]
            if known:
                table.setdefault(name, {})[item] = sum(known) / len(known)
    return table
