"""A user's own recordings: audio files with transcripts, and whatever tells the speaker and the emotion."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ttsadapt.data import audio, espeak, manifest
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.found import Found
from ttsadapt.data.recordings import Recordings
from ttsadapt.data.splits import assign, check_settings
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError, DataError, UserError
from ttsadapt.files import content_hash, digest
from ttsadapt.text.phones import phonemize


class Folder(Corpus):
    """Every recording below `path` fills the set `role`; those of another folder may fill the source."""

    def __init__(
        self,
        path: str,
        role: str = "target",
        source: Mapping[str, Any] | None = None,
        metadata: str | None = None,
        pattern: str | None = None,
        speaker: str | None = None,
        emotion: str | None = None,
        parent: str = "speaker",
        language: str = "en-us",
        sample_rate: int = 16000,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
    ) -> None:
        """How a folder is read: see `Recordings`. `source` holds the same settings for the folder of the source set.

        `fractions` are the shares of train, valid and test in the sentences that no split is given for.
        """
        check_settings(role, fractions)
        self.inputs = {role: Recordings(str(path), metadata, pattern, speaker, emotion, parent, language)}
        if source:
            if role == "source":
                raise ConfigError("role is source and source is given too: leave one out")
            self.inputs["source"] = _recordings(source)
        self.sample_rate, self.fractions = sample_rate, tuple(fractions)

    def fingerprint(self) -> str:
        """Contents and settings; where the folders lie does not matter."""
        read = {role: asdict(r) | {"path": content_hash(r.root), "name": r.root.resolve().name} for role, r in self.inputs.items()}
        return digest([read, self.sample_rate, self.fractions])

    def prepare(self, folder: Path) -> None:
        found = [one for role, recordings in self.inputs.items() for one in recordings.found(role)]
        if len(self.inputs) > 1:  # two folders may well use the same names
            found = [replace(f, utterance=replace(f.utterance, id=f"{f.set}-{f.utterance.id}")) for f in found]
        bring_in(assign(found, self.fractions), folder, self.sample_rate)


def bring_in(found: Sequence[Found], folder: Path, rate: int) -> None:
    """Write every recording as 16-bit mono at `rate` below `folder`, and the manifests."""
    parts: dict[str, list[Utterance]] = {}
    for one in tqdm(found, "bringing in recordings", unit="utt", leave=False):
        check_text(one)
        samples = audio.load(one.utterance.audio, rate)
        path = folder / "wavs" / one.part / f"{one.utterance.id}.wav"
        audio.save(path, samples, rate)
        parts.setdefault(one.part, []).append(replace(one.utterance, audio=path, duration=len(samples) / rate))
    for part, utterances in parts.items():
        manifest.write(utterances, folder, part)


def check_text(one: Found) -> None:
    """DataError when the text cannot be spoken; beyond letters, only where espeak-ng is installed (a backbone may not need it)."""
    if not any(c.isalnum() for c in one.utterance.text):  # espeak-ng would read a lone "!!!" as "exclamation"
        raise DataError(f"{one.where}: the text {one.utterance.text!r} has nothing to pronounce: correct it, or remove the recording")
    try:
        espeak.version()
    except UserError:
        return
    try:
        phonemize(one.utterance.text, one.utterance.language)
    except UserError as error:
        raise DataError(f"{one.where}: {error}") from error


def _recordings(settings: Mapping[str, Any]) -> Recordings:
    known = inspect.signature(Recordings).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"source.{unknown[0]}: unknown setting, take of {', '.join(known)}")
    if not settings.get("path"):
        raise ConfigError("source.path is missing: give the folder of the source recordings")
    return Recordings(**settings)
