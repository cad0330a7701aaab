"""Times of words (or of sentences) that lie beside a recording: csv, json, TextGrid, ctm, srt, vtt.

Each reader takes (path, its text) and gives `Word`s with what was heard, in seconds from the beginning of the file; silences are left out.
"""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ttsadapt.data.alignment.textgrid import textgrid
from ttsadapt.data.found import Word
from ttsadapt.data.layouts.files import cut, decoded
from ttsadapt.errors import DataError

_NAMES = {"text": ("word", "text", "label"), "start": ("start", "begin", "start_time", "xmin"), "end": ("end", "stop", "end_time", "xmax")}
_CUE = re.compile(r"^((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})")


def given(audio: Path) -> tuple[Word, ...]:
    """What lies beside a recording, in order; () for nothing. `<name>.words.<suffix>` goes before `<name>.<suffix>`.

    Raises DataError, with the line where there is one, for a file that cannot be read as what its suffix says.
    """
    path = beside(audio)
    if path is None:
        return ()
    found = list(READERS[path.suffix.lower()](path, decoded(path)))
    for word in found:
        if not 0 <= word.start <= word.end:
            raise DataError(f"{path}: {word.text!r} from {word.start:g} to {word.end:g} s: an end before its start, or no time: correct it")
    if not found:
        raise DataError(f"{path} has no words: write the times of what is said, or remove it")
    return tuple(sorted(found, key=lambda w: (w.start, w.end)))


def beside(audio: Path) -> Path | None:
    """The file with the times of this recording; None where there is none."""
    there = {p.name.lower(): p for p in audio.parent.glob(f"{_escaped(audio.stem)}.*")}
    names = [f"{audio.stem}.words{suffix}" for suffix in READERS] + [f"{audio.stem}{s}" for s in READERS if s not in (".csv", ".json")]
    return next((there[n.lower()] for n in names if n.lower() in there), None)


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _table(path: Path, text: str) -> Iterator[Word]:
    """A header with word, start, end, in seconds."""
    delimiter = next((d for d in "\t;" if d in cut(text)[0]), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    for row in reader:
        yield _row(row, f"{path}, line {reader.line_num}")


def _json(path: Path, text: str) -> Iterator[Word]:
    """A list of {word, start, end}, or {"words": such a list}, or {"segments": [{"words": ...}, ...]} as recognisers write them."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}): correct it") from error
    rows = _rows(value)
    if rows is None:
        raise DataError(f'{path}: no list of words: write [{{"word": "so", "start": 0.1, "end": 0.3}}, ...]')
    for number, row in enumerate(rows, 1):
        where = f"{path}, word {number}"
        if not isinstance(row, dict):
            raise DataError(f'{where}: {row!r} is not {{"word": ..., "start": ..., "end": ...}}: correct it')
        yield _row({str(k).lower(): v for k, v in row.items()}, where)


def _rows(value: Any) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and isinstance(value.get("words"), list):
        return value["words"]
    if isinstance(value, dict) and isinstance(segments := value.get("segments"), list) and all(isinstance(s, dict) for s in segments):
        words = [w for s in segments for w in s.get("words") or ()]
        return words or segments
    return None


def _row(row: dict[str, Any], where: str) -> Word:
    found = {name: next((row[n] for n in names if row.get(n) not in (None, "")), None) for name, names in _NAMES.items()}
    if missing := next((name for name, value in found.items() if value is None), None):
        raise DataError(f"{where}: no {missing if missing != 'text' else 'word'}: columns are word, start and end, in seconds")
    return Word(str(found["text"]).strip(), _seconds(found["start"], where), _seconds(found["end"], where))


def _seconds(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {value!r} is no time in seconds: correct it") from error


def _ctm(path: Path, text: str) -> Iterator[Word]:
    """NIST's: recording, channel, start, duration, word. Of several recordings, the lines of this one."""
    rows: list[tuple[str, Word]] = []
    for number, line in enumerate(cut(text), 1):
        cells = line.split()
        if not cells or line.startswith(";;"):
            continue
        where = f"{path}, line {number}"
        if len(cells) < 5:
            raise DataError(f"{where}: {len(cells)} columns where recording, channel, start, duration and word are due: correct it")
        start = _seconds(cells[2], where)
        if not _silent(cells[4]):
            rows.append((cells[0], Word(cells[4], start, start + _seconds(cells[3], where))))
    name = re.sub(r"\.words$", "", path.stem)
    several = len({recording for recording, _ in rows}) > 1
    yield from (word for recording, word in rows if not several or recording == name)


def _captions(path: Path, text: str) -> Iterator[Word]:
    """SubRip and WebVTT: a cue is a piece that is never cut. Markup, notes and what vtt says before its cues are passed over."""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        timed = next((i for i, line in enumerate(lines[:2]) if "-->" in line), None)
        if timed is None:
            continue
        if not (match := _CUE.match(lines[timed].strip())):
            number = text[: text.find(lines[timed])].count("\n") + 1
            raise DataError(f"{path}, line {number}: {lines[timed].strip()!r} is not 00:00:01,000 --> 00:00:02,500: correct it")
        said = html.unescape(re.sub(r"<[^>]*>|\{\\[^}]*\}", "", " ".join(lines[timed + 1 :])))
        if said := " ".join(said.split()):
            yield Word(said, _clock(match.group(1)), _clock(match.group(2)))


def _clock(value: str) -> float:
    """[hours:]minutes:seconds.fraction -> seconds"""
    total = 0.0
    for part in value.replace(",", ".").split(":"):
        total = 60 * total + float(part)
    return total


def _grid(path: Path, text: str) -> Iterator[Word]:
    """The tier "words" (Montreal Forced Aligner's, also "<speaker> - words"), else the only interval tier."""
    tiers = textgrid(path, text)
    named = [t for t in tiers if re.search(r"(^|[\s-])(words?|ort|ortho|mau-ort|orthography)$", t.name.strip().lower())]
    chosen = named or (tiers if len(tiers) == 1 else [])
    if not chosen:
        there = ", ".join(repr(t.name) for t in tiers) or "none"
        raise DataError(f"{path}: no interval tier is called words (there are {there}): name the one with the words so")
    yield from (Word(label, start, end) for tier in chosen for label, start, end in tier.intervals if not _silent(label))


def _silent(label: str) -> bool:
    """What aligners call stretches without words."""
    return label.strip().lower() in {"", "_", "#", "sil", "sp", "pau", "<sil>", "<eps>", "<p:>", "<p>", "!sil", "[sil]", "<s>", "</s>"}


READERS: dict[str, Callable[[Path, str], Iterator[Word]]] = {
    ".csv": _table,
    ".json": _json,
    ".textgrid": _grid,
    ".ctm": _ctm,
    ".srt": _captions,
    ".vtt": _captions,
}
"""by suffix: where several lie beside a recording, the first"""
