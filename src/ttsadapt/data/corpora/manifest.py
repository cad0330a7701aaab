"""Recordings that another program has listed as a lhotse CutSet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ttsadapt.data import manifest
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.base import SETS, SPLITS
from ttsadapt.data.corpora.listed import Listed
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.found import Found, Rejected, Word
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.splits import check_role, named
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import read_json, write_json

Row = dict[str, Any]


class Manifest(Listed):
    """One cuts file (`.jsonl` or `.jsonl.gz`), or a folder of `<set>.<split>.jsonl.gz`."""

    def __init__(
        self, path: str, role: str = "target", root: str | None = None, language: str | None = None, bring: Bringing | None = None
    ) -> None:
        """Recordings must lie below `root`, to which their paths are relative; None: the manifest's own folder.

        `role` is the set of a single file, whose cuts may say their split in a custom field "split". `language`, an espeak-ng name, goes
        before that of the cuts.
        """
        super().__init__(path, bring or Bringing())
        check_role(role)
        self.role, self.given_root, self.language = role, root, language

    def inputs(self) -> list[Path]:
        """The cuts files, and every recording that they name."""
        files = [file for file, _, _ in self._files()]
        return [*files, *dict.fromkeys(path for file in files for path in self._recordings(file))]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"given_root": None, "files": [[role, split] for _, role, split in self._files()]}

    def found(self) -> Iterator[Found | Rejected]:
        below = manifest.Below(self._above)
        for file, role, split in self._files():
            for row, where in manifest.rows(file):
                try:
                    yield self._found(row, role, split, where, below)
                except _Bad as bad:
                    yield Rejected(where, *bad.args)

    def _files(self) -> list[tuple[Path, str, str]]:
        """(file, set, split or "")."""
        path = Path(self.path).expanduser()
        if path.is_file():
            return [(path, self.role, "")]
        if not path.is_dir() or not manifest.names(path):
            raise DataError(f"no cuts file and no folder with <set>.<split>{manifest.SUFFIX} at {path}: correct the path")
        files = []
        for name in manifest.names(path):
            role, _, split = name.partition(".")
            if role not in SETS or split not in SPLITS:
                raise DataError(f"{path / name}{manifest.SUFFIX}: name it <set>.<split> of {', '.join(SETS)} and {', '.join(SPLITS)}")
            files.append((path / f"{name}{manifest.SUFFIX}", role, split))
        return files

    @property
    def _above(self) -> Path:
        path = Path(self.path).expanduser()
        return Path(self.given_root).expanduser() if self.given_root else path if path.is_dir() else path.parent

    def _recordings(self, file: Path) -> Iterator[Path]:
        """Those that are there; what is wrong with the others is told when they are brought in."""
        below = manifest.Below(self._above)
        for source in self._sources(file):
            try:
                yield _located({"source": source}, below, str(file))
            except _Bad:
                continue

    def _sources(self, file: Path) -> list[str]:
        """What its cuts call their recordings, kept for as long as the file stays the same: 100 000 cuts take seconds to read."""
        if self.cache is None:
            return _named_in(file)
        kept = self.cache / "listings" / f"{Hashes(self.cache).of([file])}.json"
        if not kept.is_file():
            write_json(kept, _named_in(file))
        return read_json(kept)

    def _found(self, row: Row, role: str, split: str, where: str, below: manifest.Below) -> Found:
        source, channel = _source(row, where)
        audio = _located(source, below, where)
        try:
            (said,) = row["supervisions"]
            start, length = float(row["start"]), float(row["duration"])
            custom = (row.get("custom") or {}) | (said.get("custom") or {})
            text, speaker = (str(said.get(name) or "").strip() for name in ("text", "speaker"))
            phones, words = _tiled(_alignment(said, "phone"), length), _alignment(said, "word")
            utterance = Utterance(
                id=str(row["id"]),
                audio=audio,
                text=" ".join(text.split()),
                speaker=speaker,
                emotion=custom.get("emotion") or "neutral",
                language=self.language or said.get("language") or "en-us",
                duration=length,
                phones=phones,
                label=custom.get("label") or "",
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = f"{where}: not a cut of one recording with one supervision ({error!r}): correct or remove it"
            raise _Bad("not a cut", told) from error
        for name, value, kind in (("text", text, "no text"), ("speaker", speaker, "no speaker")):
            if not value:
                raise _Bad(kind, f"{where}: its supervision has no {name}: add it, or remove the cut")
        try:
            split = split or named(str(custom.get("split", "")), where)
        except DataError as error:
            raise _Bad("unknown split", str(error)) from error
        timed = tuple(Word(w.symbol, start + w.start, start + w.end) for w in words)
        whole = start == 0 and length == row["recording"].get("duration")
        return Found(utterance, role, split, where, start, None if whole else start + length, timed, channel=channel)


def _named_in(file: Path) -> list[str]:
    named: dict[str, None] = {}
    for row, where in manifest.rows(file, phones=False):
        try:
            named.setdefault(_source(row, where)[0]["source"])
        except _Bad:
            continue
    return list(named)


class _Bad(Exception):
    """`args`: kind, told."""


def _located(source: Mapping[str, Any], below: manifest.Below, where: str) -> Path:
    try:
        path = below.below(source["source"], where)
    except DataError as error:
        raise _Bad("outside", f"{error}; or set root to the folder above the recordings") from error
    if not path.is_file():
        raise _Bad("missing file", f"{where}: no recording {path}: correct its path, or set root to the folder that it is relative to")
    return path


def _source(row: Row, where: str) -> tuple[Mapping[str, Any], int | None]:
    """The audio file of a cut, and which of its channels; None when it has one."""
    try:
        recording, wanted = row["recording"], int(row.get("channel", 0))
        for source in recording["sources"]:
            if source["type"] != "file" or not isinstance(source["source"], str):
                raise _Bad("not in a file", f"{where}: its audio is not in a file: write the manifest with audio files")
            if recording.get("transforms"):
                raise _Bad("not in a file", f"{where}: its audio is transformed when it is read: write it to a file (lhotse: save_audio)")
            if wanted in (channels := source["channels"]):
                return source, channels.index(wanted) if len(channels) > 1 else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Bad("not a cut", f"{where}: not a cut of one recording ({error!r}): correct or remove it") from error
    raise _Bad("not a cut", f"{where}: its recording has no channel {wanted}: correct or remove it")


def _alignment(supervision: Mapping[str, Any], kind: str) -> list[Phone]:
    """Sorted by time; [] when there is none."""
    items = (supervision.get("alignment") or {}).get(kind, ())
    return sorted((Phone(str(i[0]), float(i[1]), float(i[1]) + float(i[2])) for i in items), key=lambda item: item.start)


def _tiled(items: list[Phone], duration: float) -> tuple[Phone, ...]:
    """The items with pauses in their gaps, from 0 to the end of the cut; () when there are none."""
    phones: list[Phone] = []
    now = 0.0
    for item in items:
        if item.start > now + 1e-6:
            phones.append(Phone(PAUSE, now, item.start))
        now = min(item.end, duration)
        if now > (start := max(item.start, 0.0)):
            phones.append(Phone(item.symbol, start, now))
    if phones and now < duration - 1e-6:
        phones.append(Phone(PAUSE, now, duration))
    return tuple(phones)
