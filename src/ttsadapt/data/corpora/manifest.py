"""Recordings that another program has listed as a lhotse CutSet."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ttsadapt.data import audio, manifest
from ttsadapt.data.corpora.base import SETS, SPLITS, Corpus
from ttsadapt.data.corpora.folder import check_text
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.found import Found
from ttsadapt.data.splits import assign, check_settings, named
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError, UserError
from ttsadapt.files import content_hash, digest, inside

if TYPE_CHECKING:
    from lhotse import MonoCut


class Manifest(Corpus):
    """One cuts file (`.jsonl` or `.jsonl.gz`), or a folder of `<set>.<split>.jsonl.gz`."""

    def __init__(
        self,
        path: str,
        role: str = "target",
        root: str | None = None,
        language: str | None = None,
        sample_rate: int = 16000,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
    ) -> None:
        """Recordings must lie below `root`, to which their paths are relative; None: the manifest's own folder.

        `role` and `fractions` are for a single file: its set, and the shares of train, valid and test where its cuts have no
        custom field "split". `language`, an espeak-ng name, goes before that of the cuts.
        """
        check_settings(role, fractions)
        self.path, self.role, self.given_root, self.language = path, role, root, language
        self.sample_rate, self.fractions = sample_rate, tuple(fractions)

    def fingerprint(self) -> str:
        """Contents of the cuts files and of every recording that they name, and settings."""
        contents = [[role, split, content_hash(file)] for file, role, split in self._inputs()]
        recordings: dict[Path, str] = {}
        for file, _, _ in self._inputs():
            for row, where in manifest.rows(file):
                for path in (self._located(source, where) for source in _sources(row, where)):
                    if path not in recordings:
                        recordings[path] = content_hash(path)
        return digest([contents, list(recordings.values()), self.language, self.sample_rate, self.fractions])

    def prepare(self, folder: Path) -> None:
        listed = [(self._found(cut, role, split, where), cut) for file, role, split in self._inputs() for cut, where in self._cuts(file)]
        cuts = {(f.set, f.utterance.id): cut for f, cut in listed}
        if len(cuts) < len(listed):
            told: dict[tuple[str, str], str] = {}
            for one, _ in listed:
                if other := told.get(key := (one.set, one.utterance.id)):
                    raise DataError(f"{one.where}: the id {one.utterance.id!r} is also that of {other}: make every id different")
                told[key] = one.where
        parts: dict[str, list[Utterance]] = {}
        for one in tqdm(assign([f for f, _ in listed], self.fractions), "bringing in recordings", unit="utt", leave=False):
            check_text(one)
            utterance = self._bring_in(one, cuts[one.set, one.utterance.id], folder)
            parts.setdefault(one.part, []).append(utterance)
        for part, utterances in parts.items():
            manifest.write(utterances, folder, part)

    @property
    def _root(self) -> Path:
        path = Path(self.path).expanduser()
        return Path(self.given_root).expanduser() if self.given_root else path if path.is_dir() else path.parent

    def _inputs(self) -> list[tuple[Path, str, str]]:
        """(file, set, split or "")."""
        path = Path(self.path).expanduser()
        if path.is_file():
            return [(path, self.role, "")]
        if not path.is_dir() or not manifest.names(path):
            raise DataError(f"no cuts file and no folder with <set>.<split>{manifest.SUFFIX} at {path}: correct the path")
        inputs = []
        for name in manifest.names(path):
            role, _, split = name.partition(".")
            if role not in SETS or split not in SPLITS:
                raise DataError(f"{path / name}{manifest.SUFFIX}: name it <set>.<split> of {', '.join(SETS)} and {', '.join(SPLITS)}")
            inputs.append((path / f"{name}{manifest.SUFFIX}", role, split))
        return inputs

    def _cuts(self, file: Path) -> Iterator[tuple["MonoCut", str]]:
        from lhotse.serialization import deserialize_item

        for row, where in manifest.rows(file):
            for source in _sources(row, where):
                source["source"] = str(self._located(source, where))
            try:
                cut = deserialize_item(row)
                (_,) = cut.supervisions
            except Exception as error:  # lhotse's checks raise whatever the mistake leads to
                raise DataError(f"{where}: not a cut of one recording with one supervision ({error!r}): correct or remove it") from error
            yield cut, where

    def _located(self, source: dict[str, Any], where: str) -> Path:
        try:
            path = inside(self._root, source["source"])
        except UserError as error:
            raise DataError(f"{where}: {error}; or set root to the folder above the recordings") from error
        if not path.is_file():
            raise DataError(f"{where}: no recording {path}: correct its path, or set root to the folder that it is relative to")
        return path

    def _found(self, cut: "MonoCut", role: str, split: str, where: str) -> Found:
        (supervision,) = cut.supervisions
        custom = (cut.custom or {}) | (supervision.custom or {})
        for name in ("text", "speaker"):
            if not getattr(supervision, name):
                raise DataError(f"{where}: its supervision has no {name}: add it, or remove the cut")
        utterance = Utterance(
            id=cut.id,
            audio=Path(cut.recording.sources[0].source),
            text=supervision.text,
            speaker=supervision.speaker,
            emotion=custom.get("emotion", "neutral"),
            language=self.language or supervision.language or "en-us",
            duration=cut.duration,
            phones=_tiled(cut),
        )
        return Found(utterance, role, split or named(str(custom.get("split", "")), where), where)

    def _bring_in(self, one: Found, cut: "MonoCut", folder: Path) -> Utterance:
        try:
            loaded = cut.load_audio()  # (channels, samples)
        except Exception as error:  # lhotse wraps the errors of several readers
            raise DataError(f"{one.where}: cannot read {one.utterance.audio} as audio: replace it or remove the cut") from error
        samples = audio.mono(loaded.T, cut.sampling_rate, self.sample_rate, f"{one.where}: {one.utterance.audio}")
        path = folder / "wavs" / one.part / f"{one.utterance.id.replace('/', '-')}.wav"
        audio.save(path, samples, self.sample_rate)
        seconds = len(samples) / self.sample_rate
        phones = one.utterance.phones
        if phones:
            phones = (*phones[:-1], phones[-1]._replace(end=seconds))  # resampling rounds the length
        return replace(one.utterance, id=path.stem, audio=path, duration=seconds, phones=phones)


def _sources(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The audio files of a cut."""
    try:
        found = row["recording"]["sources"]
        if all(s["type"] == "file" and isinstance(s["source"], str) for s in found):
            return found
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: not a cut of one recording ({error!r}): correct or remove it") from error
    raise DataError(f"{where}: its audio is not in a file: write the manifest with audio files")


def _tiled(cut: "MonoCut") -> tuple[Phone, ...]:
    """The alignment "phone" with pauses in its gaps, from 0 to the end of the cut; () when there is none."""
    (supervision,) = cut.supervisions
    items = sorted((supervision.alignment or {}).get("phone", ()), key=lambda item: item.start)
    phones: list[Phone] = []
    now = 0.0
    for item in items:
        if item.start > now + 1e-6:
            phones.append(Phone(PAUSE, now, item.start))
        now = min(item.end, cut.duration)
        if now > (start := max(item.start, 0.0)):
            phones.append(Phone(item.symbol, start, now))
    if phones and now < cut.duration - 1e-6:
        phones.append(Phone(PAUSE, now, cut.duration))
    return tuple(phones)
