"""What `ttsadapt prepare` prints of a corpus: how much there is, of whom, how it is split, what was refused and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ttsadapt.data.bringing.engine import REJECTED
from ttsadapt.data.emotions import EMOTIONS, meant
from ttsadapt.data.found import Rejected
from ttsadapt.text_table import aligned, lasting

_SPEAKERS, _EXAMPLES, _TWICE, _WORDS, _NAMES = 12, 3, 3, 6, 24
"""how many are shown: speakers, refused recordings of a kind, recordings that are there twice, unknown emotions, emotions"""
Sets = Mapping[str, Mapping[str, Any]]


def told(card: Mapping[str, Any], rejected: Sequence[Rejected], folder: Path) -> list[str]:
    """Lines. `card`: a prepared corpus's."""
    sets: Sets = card["sets"]
    lines = [*table(sets), "", *speakers(sets), *emotions(sets), *(strange(sets) or lacking(sets))]
    lines += [named("languages", _summed(sets, "languages")), *timed(card.get("alignment"))]
    return [*lines, *refused(rejected, folder), *twice(card.get("duplicates", ())), f"written to {folder}"]


def table(sets: Sets) -> list[str]:
    """A line a set and split: how much there is, and of how many kinds."""
    head = ["set", "utterances", "length", "share", "sentences", "speakers", "emotions", "languages", "seconds: least", "median", "most"]
    whole: Counter[str] = Counter()
    for name, part in sets.items():
        whole[name.partition(".")[0]] += part["utterances"]
    rows = [head]
    for name, part in sets.items():
        kinds = [str(len(part[kind])) for kind in ("voices", "emotions", "languages")]
        share = f"{part['utterances'] / whole[name.partition('.')[0]]:.0%}"
        rows.append([
            name, str(part["utterances"]), lasting(part["seconds"]), share, str(part["sentences"]), *kinds,
            *(f"{seconds:.1f}" for seconds in part["durations"]),
        ])  # fmt: skip
    return aligned(rows)


def speakers(sets: Sets) -> list[str]:
    """How much there is of each set's speakers, those with most first: a wrong pattern shows here."""
    spoken: dict[str, Counter[str]] = {}
    for name, part in sets.items():
        spoken.setdefault(name.partition(".")[0], Counter()).update(part["seconds_of"])
    lines = []
    for name, counter in spoken.items():
        most = [f"{who} {lasting(seconds)}" for who, seconds in counter.most_common(_SPEAKERS)]
        rest = [seconds for _, seconds in counter.most_common()[_SPEAKERS:]]
        more = [f"{len(rest)} more {lasting(sum(rest))}"] if rest else []
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


def strange(sets: Sets) -> list[str]:
    """Emotions outside the vocabulary; aloud where none is in it, or nearly every recording has its own: no emotion may be meant."""
    counted = _summed(sets, "emotions")
    others = {name: n for name, n in counted.items() if name not in EMOTIONS}
    if not others:
        return []
    each = [f"{name} {n}{_ours(name)}" for name, n in others.items()]
    shown = _first(each, _WORDS)
    mend = "if these are not emotions, correct data.pattern, data.parent or the table that tells them"
    if 2 * len(others) > sum(others.values()):
        said = f"WARNING: nearly every recording has an emotion of its own ({shown})"
    elif len(others) == len(counted):
        said = f"WARNING: no emotion is in the vocabulary, {', '.join(EMOTIONS)} (here: {shown})"
    else:
        said = f"not in the vocabulary of emotions: {shown}"
    return [f"{said}: {mend}; if they are, a base that does not know them is told whose they are like by backbone.frontend.emotion_aliases"]


def _ours(word: str) -> str:
    known = meant(word, EMOTIONS)
    return f" (the vocabulary's {known})" if known in EMOTIONS else ""


def lacking(sets: Sets) -> list[str]:
    """Emotions that a set has and one of its splits has not: of these that split tells nothing."""
    lines = []
    for name, part in sets.items():
        whole = {e for other, of in sets.items() if other.partition(".")[0] == name.partition(".")[0] for e in of["emotions"]}
        if missing := sorted(whole - set(part["emotions"])):
            lines.append(f"{name} has no recording that is {', '.join(missing)}: there are too few sentences of it, or splits are given")
    return lines


def timed(alignment: Mapping[str, Any] | None) -> list[str]:
    """How many got the times of their phones, and how sure the aligner is of them."""
    if alignment is None:
        return []
    given = f", {alignment['given']} had their times already" if alignment["given"] else ""
    left = f", {alignment['left_out']} left out (below, as alignment)" if alignment["left_out"] else ", none left out"
    if (middle := alignment["median"]) is None:
        return [f"aligned: {alignment['aligned']}{left}{given}"]
    least = "" if alignment["tenth"] is None else f", a tenth of them below {alignment['tenth']:.2f}"
    poor = f"less than {alignment['poor']:g} is poor{': do the texts say what is said?' if middle < alignment['poor'] else ''}"
    return [f"aligned: {alignment['aligned']}{left}{given}; confidence (0 to 1): median {middle:.2f}{least}; {poor}"]


def named(kind: str, counter: Mapping[str, int], more: Mapping[str, str] | None = None) -> str:
    return f"{kind}: {_first([f'{name} {n}' + (more or {}).get(name, '') for name, n in counter.items()], _NAMES)}"


def _first(said: Sequence[str], most: int) -> str:
    return ", ".join([*said[:most], *([f"{len(said) - most} more"] if len(said) > most else [])])


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
    # With the same text and labels they were one recording, of which the others were refused.
    some = "; ".join(" = ".join(ids) for ids in duplicates[:_TWICE])
    some += " ..." if len(duplicates) > _TWICE else ""
    return [
        f"the same samples with other texts, labels or sets, {len(duplicates)} of them ({some}): "
        "all are kept, and in one split; one of the texts or labels may be wrong"
    ]


def _summed(sets: Sets, kind: str) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for part in sets.values():
        total.update(part[kind])
    return dict(total.most_common())
