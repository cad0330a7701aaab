"""Utterances that a model speaks itself, kept where the recogniser understands them: rehearsal without source data."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ttsadapt.artifacts import Artifact
from ttsadapt.backbones.base import Backbone
from ttsadapt.bars import Bar
from ttsadapt.data import manifest
from ttsadapt.data.audio import load, save
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest, write_json
from ttsadapt.metrics.judges.recogniser import Recogniser, errors, phones_of
from ttsadapt.metrics.signal import RATE

NAME = "spoken.train"
TOGETHER = 16
"""utterances spoken between two moments at which a killed process would go on"""


class Spoken(Artifact):
    """`wavs/`, a manifest of what was understood, and `card.json` with how much that was.

    What has been spoken lies in a folder beside, from which a killed process goes on, until all is there.
    """

    def __init__(self, folder: Path, backbone: Backbone, script: Sequence[Utterance], judge: Recogniser, per: float, seed: int) -> None:
        """`script`: what to say, in whose voice; `per`: phone error rate in % up to which an utterance is kept."""
        self.folder, self.backbone, self.judge, self.per, self.seed = folder, backbone, judge, per, seed
        self.script = [replace(utterance, context=()) for utterance in script]  # what came before is not kept beside it

    def needs(self) -> tuple[Artifact, ...]:
        return (self.judge,)

    def build(self, folder: Path) -> None:
        self._speak(folder)
        kept = [u for u in (self._understood(self._in(folder, u)) for u in Bar(self.script, "recognising", unit="utt", leave=False)) if u]
        if not kept:
            raise DataError(
                f"generative rehearsal: none of the {len(self.script)} utterances that the base spoke is understood with at most "
                f"{self.per:g} % phone errors: raise strategy.generative_rehearsal.per, or give data.source and take rehearsal"
            )
        manifest.write(kept, folder, NAME)
        write_json(folder / "card.json", {"spoken": len(self.script), "kept": len(kept), "per": self.per, "judge": self.judge.version})

    def produce(self) -> None:
        work = self.folder.with_name(f".{self.folder.name}.part")  # under the artifact's lock: nobody else writes there
        work.mkdir(parents=True, exist_ok=True)
        self.build(work)
        os.replace(work, self.folder)

    @cached_property
    def utterances(self) -> list[Utterance]:
        """What was understood."""
        return manifest.read(self.folder, NAME)

    def _speak(self, folder: Path) -> None:
        left = [u for u in (self._in(folder, u) for u in self.script) if not u.audio.is_file()]
        with Bar(total=len(left), desc="the base speaks what is rehearsed", unit="utt", leave=False) as bar:
            for start in range(0, len(left), TOGETHER):
                some = left[start : start + TOGETHER]
                # A request's seed is its own, so that a run that was killed in between says the same.
                requests = [replace(self.backbone.frontend.request(u), seed=int(digest([self.seed, u.id], 8), 16)) for u in some]
                for utterance, wave in zip(some, self.backbone.synthesize(requests, bar.update)):
                    save(utterance.audio, wave, self.backbone.sample_rate)

    def _in(self, folder: Path, utterance: Utterance) -> Utterance:
        return replace(utterance, audio=folder / "wavs" / f"{utterance.id}.wav")

    def _understood(self, utterance: Utterance) -> Utterance | None:
        """With the times of its phones; None when it is not."""
        from ttsadapt.data.placed import placed
        from ttsadapt.text.phones import phonemize

        try:
            audio = load(utterance.audio, RATE)
        except DataError:  # silence
            return None
        wanted = phones_of(utterance)
        if not wanted or 100 * errors(wanted, self.judge.transcribe(audio)) > self.per * len(wanted):
            return None
        symbols = [p.symbol for p in utterance.phones] or phonemize(utterance.text, utterance.language)
        phones = placed(self.judge, audio, symbols)
        return None if phones is None else replace(utterance, phones=phones, duration=len(audio) / RATE)
