"""How fast recordings come in, and what FastSpeech 2 learns from is computed, on one core: in seconds of audio per CPU second."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend
from ttsadapt.bench.base import Case, Comparison, Side, Work, speed
from ttsadapt.data import manifest
from ttsadapt.data.bringing.item import bring
from ttsadapt.data.bringing.settings import Bringing
from ttsadapt.data.corpora.embedded import Embedded
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.text.phones import phonemize

_MILLI = 1000


class Preparing(Case):
    """The embedded corpus's audio: read, resampled, trimmed, levelled, written; then its mel, energy and F0 (dio, refined)."""

    unit = "ms of audio"

    def __init__(self, utterances: int = 60, sample_rate: int = 24000, at_least: float = 40.0) -> None:
        """`sample_rate` of what is brought in, at 16 kHz; `at_least`: seconds of audio per CPU second, of every side."""
        self.utterances, self.sample_rate, self.at_least = utterances, sample_rate, at_least

    def sides(self) -> Mapping[str, Side]:
        return {"real time": _clock, "bringing in": self._bringing, "mel, energy, F0": self._features}

    def comparisons(self) -> Sequence[Comparison]:
        return [Comparison(side, "real time", speed, at_least=self.at_least) for side in ("bringing in", "mel, energy, F0")]

    def _bringing(self) -> Work:
        spoken, folder = self._spoken(self.sample_rate), Path(tempfile.mkdtemp(prefix="bench-"))
        how = Bringing(trim=40, loudness=-23, longest=30)
        found = [Found(replace(u, phones=()), "target", "", str(u.audio)) for u in spoken]

        def work() -> int:
            phonemize.cache_clear()  # no text is known before it is read
            for one in found:
                if isinstance(result := bring(one, folder / f"{one.utterance.id}.wav", how), Rejected):
                    raise DataError(result.told)
            return _length(spoken)

        return work

    def _features(self) -> Work:
        spoken, frontend = self._spoken(16000), FastSpeech2Frontend(16000)
        frontend.fit(spoken)

        def work() -> int:
            for utterance in spoken:
                frontend(utterance)
            return _length(spoken)

        return work

    def _spoken(self, rate: int) -> list[Utterance]:
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        counts = {f"{part}_{split}": 0 for part in ("source", "target") for split in ("train", "valid", "test")}
        nothing = counts | {"ood_test": 0, "unseen_train": 0, "unseen_test": 0, "source_train": self.utterances}
        Embedded(sample_rate=rate, processes=1, **nothing).prepare(folder)  # type: ignore[arg-type]
        return manifest.read(folder, "source.train")


def _clock() -> Work:
    def work() -> int:
        begun = time.process_time()
        while time.process_time() < begun + 0.5:
            pass
        return _MILLI // 2

    return work


def _length(utterances: Sequence[Utterance]) -> int:
    return round(_MILLI * sum(u.duration for u in utterances))
