"""What ran: facts that all runs share, facts of each, and the runs that did not finish."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ttsadapt.reports.numbers import count, percent, seconds
from ttsadapt.reports.settings import differences
from ttsadapt.reports.study import Run, Study


@dataclass(frozen=True)
class RanRun:
    """One finished run's line, and what only it says."""

    run: Run
    trained: str
    wall: str
    speed: str
    memory: str
    details: dict[str, str]


@dataclass(frozen=True)
class Ran:
    """Everything the page says on where the figures come from."""

    shared: dict[str, str]
    runs: list[RanRun]
    judges: list[tuple[str, str, str]]
    """(judge, which held-out recordings, its own error there)"""


def what_ran(study: Study) -> Ran:
    flat = [{k: v for k, v in _flat(run.provenance) if v} for run in study.runs]
    shared = {k: v for k, v in flat[0].items() if all(other.get(k) == v for other in flat)} if len(flat) > 1 else {}
    apart = [_apart(run, [other for other in study.runs if other.name == run.name]) for run in study.runs]
    own = [{k: v for k, v in facts.items() if k not in shared} for facts in flat]
    runs = [_ran(*each) for each in zip(study.runs, apart, own)]
    return Ran(shared, runs, _judges(study))


def _apart(run: Run, siblings: list[Run]) -> str:
    """What sets it apart from the runs of its name."""
    return differences([run.settings, *(other.settings for other in siblings)])[0]


def _ran(run: Run, apart: str, own: dict[str, str]) -> RanRun:
    summary = run.summary
    trained = f"{count(summary.get('trainable_parameters'))} of {count(summary.get('total_parameters'))}"
    speed, memory = (
        f"{v:.3g}" if isinstance(v, int | float) else "–" for v in (summary.get("steps_per_second"), run.provenance.get("peak_memory_gib"))
    )
    return RanRun(
        run,
        f"{trained} ({percent(summary.get('trainable_share'))})",
        seconds(summary.get("train_seconds")),
        speed,
        memory,
        ({"settings": apart} if apart else {}) | own,
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """{"versions": {"torch": "2"}} -> ("versions.torch", "2")."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, " ".join(map(str, value))
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _judges(study: Study) -> list[tuple[str, str, str]]:
    """A judge's entry is its errors by set, or a card that holds them under "error" beside their "unit"."""
    found = []
    for run in study.runs:
        for judge, card in (run.summary.get("judges") or {}).items():
            whole = isinstance(card, dict) and "error" in card
            errors, unit = (card["error"], card.get("unit") or "") if whole else (card, "")
            found += [
                (str(judge), measure.replace("_", " "), f"{float(value):.3g} {unit}".strip())
                for measure, value in _flat(errors)
                if _is_number(value)
            ]
    return list(dict.fromkeys(found))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def facts(study: Study) -> list[str]:
    """One line a run that did not finish."""
    return [f"{run.name} ({run.id}) {run.status}{': ' + run.error if run.error else ''}" for run in study.unfinished]


def date(study: Study) -> str:
    """Day of the newest finished run."""
    newest = max((run.folder / "summary.json").stat().st_mtime for run in study.runs)
    return datetime.fromtimestamp(newest).astimezone().strftime("%Y-%m-%d")
