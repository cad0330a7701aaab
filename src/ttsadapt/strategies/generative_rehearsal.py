"""Generative rehearsal (pseudo-rehearsal, Robins 1995): where no source data exist, the base speaks what is rehearsed."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ttsadapt.errors import ConfigError, UserError
from ttsadapt.files import digest
from ttsadapt.strategies.base import Mix, Strategy, Study
from ttsadapt.strategies.rehearsal import check_share

if TYPE_CHECKING:
    from ttsadapt.data.features import FeatureSet
    from ttsadapt.data.utterance import Utterance


class GenerativeRehearsal(Strategy):
    """`share` of the frames of each optimiser step are utterances that the untouched model spoke and the recogniser understood.

    Made once for a base and data, before anything changes. Neither a text of a valid or test split nor a voice of the unseen set is
    used. What the base gets wrong and the recogniser overlooks is rehearsed too.
    """

    def __init__(
        self,
        share: float = 0.25,
        utterances: int = 200,
        per: float = 25.0,
        speakers: list[str] | None = None,
        sentences_path: str | None = None,
        recogniser_steps: int = 1200,
        seed: int = 0,
    ) -> None:
        """`utterances` spoken, of which those with at most `per` % phone errors are kept. `speakers`: None takes all that the base
        knows but the target's, where there are others. `sentences_path`: a text a line; None takes those of the target's training.
        """
        super().__init__()
        check_share(share, "generative_rehearsal")
        if utterances < 1:
            raise ConfigError(f"strategy.generative_rehearsal.utterances={utterances}: give the number of utterances to speak")
        self.share, self.utterances, self.per, self.speakers = share, utterances, per, speakers
        self.sentences = None if sentences_path is None else Path(sentences_path).expanduser()
        self.recogniser_steps, self.seed = recogniser_steps, seed
        self._spoken: FeatureSet | None = None

    def study(self, study: Study) -> None:
        from ttsadapt.artifacts import ensure
        from ttsadapt.backbones.base import SOURCE
        from ttsadapt.data.features import Features, FeatureSet
        from ttsadapt.data.spoken import Spoken
        from ttsadapt.metrics.judges.recogniser import Recogniser

        assert study.shared is not None and study.corpora, "a run says where its data and judges are"
        script = self.script(study)
        judge = Recogniser(study.corpora[0], study.shared, self.recogniser_steps)
        key = digest([[(u.id, u.text) for u in script], self.per, self.seed, judge.version])
        spoken = Spoken(study.cache / f"spoken-{key}", study.backbone, script, judge, self.per, self.seed)
        ensure(spoken)
        frontend = study.backbone.frontend
        features = Features(study.cache / f"spoken-{key}-features", frontend, spoken.utterances, "what the base spoke")
        ensure(features)
        self._spoken = FeatureSet(features.folder, frontend, spoken.utterances, SOURCE)

    def mix(self, target: "FeatureSet", source: "FeatureSet", generator: torch.Generator) -> Mix:
        assert self._spoken is not None, "study comes first"
        return Mix(self.share, list(self._spoken.ids), self._spoken)

    def script(self, study: Study) -> "list[Utterance]":
        """What to say: texts and voices in turn, each list in an order drawn by the seed."""
        draw = random.Random(f"{self.seed} script")
        texts, voices = self._texts(study), list(self._voices(study))
        if not texts:
            raise ConfigError(
                f"strategy.generative_rehearsal.sentences_path={self.sentences}: every text is one of a valid or test split: give others"
            )
        if not voices:
            raise ConfigError(
                "strategy.generative_rehearsal.speakers: the base can speak as none of them: leave it out, or name some of "
                f"{', '.join(study.backbone.frontend.known_speakers[:8]) or 'the target speakers'}"
            )
        draw.shuffle(texts)
        draw.shuffle(voices)
        chosen = [(texts[i % len(texts)], voices[i % len(voices)]) for i in range(self.utterances)]
        return [
            replace(text, id=f"spoken-{i:05d}-{digest([text.text, *voice], 8)}", speaker=voice[0], emotion=voice[1])
            for i, (text, voice) in enumerate(chosen)
        ]

    def _texts(self, study: Study) -> "list[Utterance]":
        """One utterance for each text that may be used."""
        from ttsadapt.data.utterance import Utterance

        learnt = [study.target.utterances[i] for i in study.target.ids]
        if self.sentences is not None:
            lines = [line.strip() for line in self.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
            learnt = [Utterance("", Path(), line, "", language=learnt[0].language) for line in lines]
        kept_out = {_plain(u.text) for name, u in _known(study) if not name.endswith(".train")}
        return list({_plain(u.text): u for u in learnt if _plain(u.text) not in kept_out}.values())

    def _voices(self, study: Study) -> "Iterator[tuple[str, str]]":
        """(speaker, emotion) that the base can be asked for."""
        own = sorted({u.speaker for u in study.target.utterances.values()})
        emotions = sorted({u.emotion for u in study.target.utterances.values()})
        unseen = {u.speaker for name, u in _known(study) if name.startswith("unseen.")}
        others = [s for s in self.speakers or study.backbone.frontend.known_speakers if s not in unseen]
        known = others if self.speakers else [s for s in others if s not in own] or own
        like = next(iter(study.target.utterances.values()))
        for speaker in known:
            for emotion in emotions:
                try:
                    study.backbone.frontend.request(replace(like, speaker=speaker, emotion=emotion))
                except UserError:  # an emotion or a voice that the base does not know
                    continue
                yield speaker, emotion


def _known(study: Study) -> "Iterator[tuple[str, Utterance]]":
    """Every utterance of the prepared data, with its set and split."""
    from ttsadapt.data import manifest

    for corpus in study.corpora:
        for name in manifest.names(corpus):
            for utterance in manifest.read(corpus, name):
                yield name, utterance


def _plain(text: str) -> str:
    """Two texts that are said alike."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
