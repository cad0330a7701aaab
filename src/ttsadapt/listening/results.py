"""Answers as listeners hand them in: what is usable, and why the rest is not."""

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttsadapt.data.found import Rejected
from ttsadapt.listening.checksum import checksum, sheet_of
from ttsadapt.listening.key import Key


@dataclass(frozen=True)
class Answered:
    """One listener's session."""

    listener: str
    questions: dict[str, str]
    answers: dict[str, str]
    """{trial: answer}, practice left out"""
    finished: str
    """when, ISO 8601"""
    where: str


class _Refused(Exception):
    """(kind, what is wrong and what to do)."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _Refused("unreadable", "it is no file of answers, or only part of one: ask for it again") from error


def key_of(places: Sequence[Path], keys: Sequence[Key]) -> Key:
    """Of `keys`, that of the page which most files in `places` answer; the first when none answers any."""
    pages: Counter[str] = Counter()
    for path in _files(places, []):
        with suppress(_Refused), _reading():
            pages[str(json.loads(path.read_text(encoding="utf-8"))["body"]["page"])] += 1
    return max(keys, key=lambda key: pages[key.page])


def gather(places: Sequence[Path], key: Key, others: Container[str] = ()) -> tuple[list[Answered], list[Rejected]]:
    """All sessions in `places` (files, or folders of them) that belong to `key` and are whole; of a listener, the one finished first.

    `others`: pages whose keys are there too.
    """
    sessions: list[Answered] = []
    refused: list[Rejected] = []
    for path in _files(places, refused):
        try:
            sessions.append(_session(path, key, others))
        except _Refused as error:
            kind, told = error.args
            refused.append(Rejected(str(path), kind, f"{path}: {told}"))
    kept: dict[str, Answered] = {}
    for session in sorted(sessions, key=lambda s: (s.finished, s.where)):
        if session.listener in kept:
            told = (
                f"{session.where}: listener {session.listener!r} has answered in {kept[session.listener].where} already: the first counts"
            )
            refused.append(Rejected(session.where, "listener twice", told))
        else:
            kept[session.listener] = session
    return sorted(kept.values(), key=lambda s: s.listener), refused


def _files(places: Sequence[Path], refused: list[Rejected]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(place.glob("*.json"))
        elif place.is_file():
            yield place
        else:
            refused.append(Rejected(str(place), "no such file", f"{place}: there is no such file or folder: correct results="))


def _session(path: Path, key: Key, others: Container[str]) -> Answered:
    with _reading():
        stated = json.loads(path.read_text(encoding="utf-8"))
        body = stated["body"]
        trials = {str(t["trial"]): (str(t["answer"]), int(t["ms"])) for t in body["trials"]}
        session = Answered(
            str(body["listener"]),
            {str(k).removeprefix("q:"): str(v) for k, v in body["questions"].items()},
            {code: answer for code, (answer, _) in trials.items() if code not in key.training},
            str(body["finished"]),
            str(path),
        )
        sheet = sheet_of(session.listener, len(key.sheets))
    _refuse_foreign(stated, session, key, others)
    _refuse_incomplete(body, session, sheet, key)
    _refuse_impossible(trials, key)
    return session


def _refuse_foreign(stated: dict[str, Any], session: Answered, key: Key, others: Container[str]) -> None:
    if (page := str(stated["body"].get("page"))) != key.page:
        where = "give the files that answer it alone in results=" if page in others else "read it there"
        raise _Refused("another page", f"it answers page {page}, this is {key.page} ({key.name} of {key.study}): {where}")
    if stated.get("checksum") != checksum(stated["body"]):
        raise _Refused("altered", "its checksum does not fit: it was changed after the page wrote it, ask for the original")
    if not session.listener.strip():
        raise _Refused("no listener", "it has no listener code: ask for it again")


def _refuse_incomplete(body: dict[str, Any], session: Answered, sheet: int, key: Key) -> None:
    wanted, given = set(key.sheets[sheet]), set(session.answers)
    if body.get("sheet") != sheet or given - wanted:
        raise _Refused("another listener's trials", f"its trials are not those of listener {session.listener!r}: leave it out")
    if wanted - given:
        raise _Refused("incomplete", f"{len(given)} of {len(wanted)} trials are answered: ask the listener to finish")


def _refuse_impossible(trials: dict[str, tuple[str, int]], key: Key) -> None:
    for code, (answer, milliseconds) in trials.items():
        trial = key.trials.get(code)
        if trial is None or answer not in trial.worth:
            raise _Refused("unknown answer", f"it answers {answer!r} to {code}, which the page does not offer: leave it out")
        if milliseconds < 950 * trial.seconds:  # clocks and decoders round
            raise _Refused(
                "too fast",
                f"{code} was answered {milliseconds / 1000:.1f} s after it came up, its clips last {trial.seconds:.1f} s: leave it out",
            )
