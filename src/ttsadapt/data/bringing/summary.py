"""What `ttsadapt prepare` prints of a corpus: how much there is, of whom, how it is split, what was refused and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ttsadapt.data.bringing.engine import REJECTED
from ttsadapt.data.found import Rejected
from ttsadapt.text_table import aligned

_SPEAKERS, _EXAMPLES, _TWICE = 12, 3, 3
"""how many are shown: speakers, refused recordings of a kind, recordings that are there twice"""
Sets = Mapping[str, Mapping[str, Any]]


def told(card: Mapping[str, Any], rejected: Sequence[Rejected], folder: Path) -> list[str]:
    """Lines. `card`: a prepared corpus's."""
    sets: Sets = card["sets"]
    lines = [*table(sets), "", *speakers(sets), *emotions(sets), named("languages", _summed(sets, "languages"))]
    return [*lines, *refused(rejected, folder), *twice(card.get("duplicates", ())), f"written to {folder}"]


def table(sets: Sets) -> list[str]:
    """A line a set and split: how much there is, and of how many kinds."""
    head = ["set", "utterances", "hours", "share", "sentences", "speakers", "emotions", "languages", "seconds: least", "median", "most"]
    whole: Counter[str] = Counter()
    for name, part in sets.items():
        whole[name.partition(".")[0]] += part["utterances"]
    rows = [head]
    for name, part in sets.items():
        kinds = [str(len(part[kind])) for kind in ("voices", "emotions", "languages")]
        share = f"{part['utterances'] / whole[name.partition('.')[0]]:.0%}"
        rows.append([
            name, str(part["utterances"]), f"{part['seconds'] / 3600:.3f}", share, str(part["sentences"]), *kinds,
            *(f"{seconds:.1f}" for seconds in part["durations"]),
        ])  # fmt: skip
    return aligned(rows)


def speakers(sets: Sets) -> list[str]:
    """Hours of each set's speakers, those with most first: a wrong pattern shows here."""
    hours: dict[str, Counter[str]] = {}
    for name, part in sets.items():
        hours.setdefault(name.partition(".")[0], Counter()).update(part["seconds_of"])
    lines = []
    for name, counter in hours.items():
        most = [f"{who} {seconds / 3600:.3f} h" for who, seconds in counter.most_common(_SPEAKERS)]
        rest = [seconds for _, seconds in counter.most_common()[_SPEAKERS:]]
        more = [f"{len(rest)} more {sum(rest) / 3600:.3f} h"] if rest else []
        lines.append(f"speakers of {name}: {', '.join([*most, *more])}")
    return lines


def emotions(sets: Sets) -> list[str]:
    """With what the corpus itself calls them."""
    labels: dict[str, Counter[str]] = {}
    for part in sets.values():
        for emotion, own in part["labels"].items():
            labels.setdefault(emotion, Counter()).update(own)
    own = {emotion: f" (there: {', '.join(sorted(counter))})" for emotion, counter in labels.items()}
    return [named("emotions", _summed(sets, "emotions"), own)]


def named(kind: str, counter: Mapping[str, int], more: Mapping[str, str] | None = None) -> str:
    each = [f"{name} {n}" + (more or {}).get(name, "") for name, n in counter.items()]
    return f"{kind}: {', '.join(each)}"


def refused(rejected: Sequence[Rejected], folder: Path) -> list[str]:
    if not rejected:
        return ["refused: none"]
    kinds = Counter(r.kind for r in rejected)
    lines = [f"refused: {len(rejected)}, all of them in {folder / REJECTED}"]
    for kind, count in kinds.most_common():
        lines.append(f"  {kind}: {count}")
        lines += [f"    {r.told}" for r in islice((r for r in rejected if r.kind == kind), _EXAMPLES)]
        lines += ["    ..."] if count > _EXAMPLES else []
    return lines


def twice(duplicates: Sequence[Sequence[str]]) -> list[str]:
    if not duplicates:
        return []
    some = "; ".join(" = ".join(ids) for ids in duplicates[:_TWICE])
    return [f"the same samples under several names, {len(duplicates)} of them ({some}{' ...' if len(duplicates) > _TWICE else ''})"]


def _summed(sets: Sets, kind: str) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for part in sets.values():
        total.update(part[kind])
    return dict(total.most_common())
