"""Recordings that were found become a prepared corpus: on several processes, going on where a killed one was, the same in the end."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import soundfile

from ttsadapt.bars import Bar
from ttsadapt.data import manifest
from ttsadapt.data.bringing.item import Brought, bring, moved
from ttsadapt.data.bringing.settings import Aligner, Bringing, Cutter
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.splits import assign
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest, write_json
from ttsadapt.machine import cores
from ttsadapt.processes import workers

REJECTED, DUPLICATES, ALIGNMENT = "rejected.csv", "duplicates.json", "alignment.json"
_JOURNAL = "journal.jsonl"
_CHUNK = 8
_WORTH_A_PROCESS = 60
"""recordings; starting a process costs about as much as bringing these in"""
_HEADER = 44
"""bytes of a WAV file before its samples"""
_LONGEST_NAME = 180
"""bytes of an id: systems allow 255 for the name of a file, and what is made of a recording has longer names"""


def bring_in(found: Iterable[Found | Rejected], folder: Path, how: Bringing) -> None:
    """Write audio, manifests, `rejected.csv`, `duplicates.json` and, where phones were aligned, `alignment.json` below `folder`.

    Raises DataError when nothing is left, and when what is left cannot be divided: before any audio is read where that is known by then.
    """
    rejected: list[Rejected] = []
    take = partial(_accepted, rejected=rejected)
    listed = list(take(Bar(found, "looking for recordings", unit="utt", leave=False)))
    if how.segments is not None:
        listed = list(take(_pieces(listed, how.segments)))
    listed = list(take(_unique(listed)))
    assign(listed, how.fractions, how.rule)  # hours later it would raise the same
    brought = list(take(_once(_brought(listed, folder, how))))
    if how.align is not None:
        whole = brought
        brought = list(take(_aligned(whole, how.align)))
        write_json(folder / ALIGNMENT, _alignment(whole, brought, how.align))
    if brought:
        brought, leaks = assign(brought, how.fractions, how.rule)
        rejected += leaks
    if not brought:
        raise DataError(nothing_left(rejected))
    _write(brought, folder)
    write_rejected(rejected, folder / REJECTED)
    write_json(folder / DUPLICATES, duplicates(brought))
    (folder / _JOURNAL).unlink(missing_ok=True)  # not before: a process killed while it aligns has nothing to bring in again


def _accepted(found: Iterable[Found | Rejected], rejected: list[Rejected]) -> Iterator[Found]:
    for one in found:
        if isinstance(one, Rejected):
            rejected.append(one)
        else:
            yield one


def nothing_left(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return "no recording was found: correct data.path, or what is chosen of it"
    kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(r.kind for r in rejected).most_common())
    return f"no recording can be used ({kinds}); the first: {_line(rejected[0])}"


def _line(one: Rejected) -> str:
    return one.told if one.where in one.told else f"{one.where}: {one.told}"


def _pieces(found: Sequence[Found], cutter: Cutter) -> Iterator[Found | Rejected]:
    for one in Bar(found, "cutting long recordings", unit="utt", leave=False):
        try:
            whole = soundfile.info(one.utterance.audio).duration
        except (soundfile.LibsndfileError, OSError):  # said when it is brought in
            yield one
            continue
        end = whole if one.end is None else min(one.end, whole)
        yield from cutter.cut(one, end - one.start)


def _unique(found: Iterable[Found]) -> Iterator[Found | Rejected]:
    """In an order of their own, each with an id that can be a file's name; of two with the same id the second is refused."""
    first: dict[tuple[str, str], str] = {}
    for one in sorted(found, key=lambda f: (f.set, f.utterance.id, f.where)):
        name = filed(one.utterance.id)
        if other := first.get((one.set, name)):
            yield Rejected(one.where, "duplicate id", f"the id {name!r} is also that of {other}: make every id different")
        else:
            first[one.set, name] = one.where
            yield replace(one, utterance=replace(one.utterance, id=name))


def filed(name: str) -> str:
    """An id as a file can be called; what is too long ends in a hash of the whole."""
    plain = name.replace("/", "-").replace("\0", "")
    if len(plain.encode()) <= _LONGEST_NAME:
        return plain
    whole = digest(name)
    return f"{plain.encode()[: _LONGEST_NAME - len(whole) - 1].decode(errors='ignore')}-{whole}"


# -- audio


def _brought(found: Sequence[Found], folder: Path, how: Bringing) -> Iterator[Found | Rejected]:
    for result, one in zip(_results(found, folder, how), found):  # in this order results come to their end
        if isinstance(result, Rejected):
            yield result
        else:
            known = one.utterance
            phones = moved(known.phones, result)
            yield replace(
                one,
                utterance=replace(known, audio=_place(folder, one), duration=result.seconds, phones=phones, hash=result.hash),
            )


def _once(brought: Iterable[Found | Rejected]) -> Iterator[Found | Rejected]:
    """The same samples with the same text and the same of everything else are one recording: the first by id is kept.

    Given splits are left as they are, what they share is another matter (`splits`); and so is what is said of the samples otherwise.
    """
    first: dict[tuple[Any, ...], str] = {}
    for one in brought:
        if isinstance(one, Found):
            u = one.utterance
            same = (one.part, u.hash, one.sentence, u.speaker, u.emotion, u.language, tuple(turn.id for turn in u.context))
            if other := first.get(same):
                told = f"{one.where}: the same recording with the same text as {other}: left out; record what was meant, or remove it"
                yield Rejected(one.where, "duplicate recording", told)
                continue
            first[same] = one.where
        yield one


def _place(folder: Path, one: Found) -> Path:
    return folder / "wavs" / one.set / f"{one.utterance.id}.wav"


def _results(found: Sequence[Found], folder: Path, how: Bringing) -> Iterator[Brought | Rejected]:
    """In order. What a killed process has done already is read from the journal beside the audio."""
    for name in {one.set for one in found}:
        (folder / "wavs" / name).mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / _JOURNAL)
    done = journal.read()
    keys = [_key(one) for one in found]
    left = [one for one, key in zip(found, keys) if not _there(done.get(key), _place(folder, one), how.sample_rate)]
    again = {id(one) for one in left}
    fresh = _fresh(left, [_place(folder, one) for one in left], how)
    with journal, Bar(total=len(found), initial=len(found) - len(left), desc="bringing in recordings", unit="utt", leave=False) as bar:
        for one, key in zip(found, keys):
            if id(one) in again:
                done[key] = next(fresh)
                journal.add(key, done[key])
                bar.update()
            yield done[key]


def _fresh(found: Sequence[Found], places: Sequence[Path], how: Bringing) -> Iterator[Brought | Rejected]:
    do = partial(bring, how=replace(how, segments=None, align=None))  # neither is a worker's business, and both may be heavy
    processes = min(how.processes or cores(), 1 + len(found) // _WORTH_A_PROCESS)
    if processes < 2:
        yield from map(do, found, places)
        return
    with workers(processes) as pool:  # they import nothing heavy
        yield from pool.map(do, found, places, chunksize=_CHUNK)


class Journal:
    """A line for every recording that is done, so that a killed process costs only what was under way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Journal":
        self._file = open(self.path, "a", encoding="utf-8")
        if self._file.tell():
            self._file.write("\n")  # the last line may have been cut short
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, key: str, result: Brought | Rejected) -> None:
        self._file.write(json.dumps([key, isinstance(result, Brought), asdict(result)], ensure_ascii=False) + "\n")
        self._file.flush()

    def read(self) -> dict[str, Brought | Rejected]:
        if not self.path.is_file():
            return {}
        done: dict[str, Brought | Rejected] = {}
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                key, good, fields = json.loads(line)
                done[key] = Brought(**fields) if good else Rejected(**fields)
            except (ValueError, TypeError):
                continue
        return done


def _key(one: Found) -> str:
    u = one.utterance
    return digest([one.set, u.id, u.audio, one.start, one.end, one.channel, u.text, u.language], 24)


def _there(result: Brought | Rejected | None, path: Path, rate: int) -> bool:
    if isinstance(result, Brought):
        return path.is_file() and path.stat().st_size == _HEADER + 2 * round(result.seconds * rate)
    return result is not None


def _aligned(found: Sequence[Found], aligner: Aligner) -> Iterator[Found | Rejected]:
    if without := [one.utterance for one in found if not one.utterance.phones]:
        aligner.fit(without)
    for one in Bar(found, "aligning", unit="utt", leave=False):
        timed = one.utterance if one.utterance.phones else aligner.times(one.utterance)
        yield replace(timed, where=one.where) if isinstance(timed, Rejected) else replace(one, utterance=timed)


def _alignment(found: Sequence[Found], aligned: Sequence[Found], aligner: Aligner) -> dict[str, Any]:
    """How many had times of phones already, how many were aligned and left out, and how sure the aligner was of all it tried."""
    given, sure = sum(bool(one.utterance.phones) for one in found), sorted(aligner.sure)
    least = quantiles(sure, n=10)[0] if len(sure) > 1 else None
    return {
        "given": given, "aligned": len(aligned) - given, "left_out": len(found) - len(aligned),
        "median": median(sure) if sure else None, "tenth": least, "poor": aligner.poor,
    }  # fmt: skip


# -- what is written


def _write(found: Sequence[Found], folder: Path) -> None:
    parts: dict[str, dict[str, Utterance]] = {}
    for one in found:
        parts.setdefault(one.part, {})[one.utterance.id] = one.utterance
    for part, utterances in parts.items():
        manifest.write((replace(u, context=_turns(u, utterances)) for u in utterances.values()), folder, part)
    used = {one.utterance.audio for one in found}
    for path in (folder / "wavs").rglob("*.wav"):
        if path not in used:  # refused after it was written
            path.unlink()


def _turns(utterance: Utterance, there: dict[str, Utterance]) -> tuple[Utterance, ...]:
    """The turns right before it that were brought in, into the same set and split: a dialogue with a hole begins after it."""
    turns: list[Utterance] = []
    for turn in reversed(utterance.context):
        if (known := there.get(filed(turn.id))) is None:
            break
        turns.insert(0, known)
    return tuple(turns)


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["where", "kind", "told"])
        writer.writerows([r.where, r.kind, r.told] for r in rejected)


def read_rejected(path: Path) -> list[Rejected]:
    """[] for a corpus that rejects nothing."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [Rejected(**row) for row in csv.DictReader(file)]


def duplicates(found: Iterable[Found]) -> list[list[str]]:
    """Ids of recordings with the same samples."""
    same: dict[str, list[str]] = {}
    for one in found:
        same.setdefault(one.utterance.hash, []).append(f"{one.set}/{one.utterance.id}")
    return sorted(ids for ids in same.values() if len(ids) > 1)
