"""The embedded phone recogniser as an acoustic model: no download, but it has heard synthetic voices only."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ttsadapt.artifacts import Artifact
from ttsadapt.data.alignment.ctc import Acoustic
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.metrics.signal import levelled

if TYPE_CHECKING:
    from ttsadapt.metrics.judges.recogniser import Recogniser


class EmbeddedRecogniser(Acoustic):
    """The judge of the metric `per`, trained on a corpus that is made on the spot; shared with everything else that asks for it."""

    remedy = (
        "the embedded recogniser has heard synthetic voices only: for real speech take a model of transformers "
        "(data/bring/align=hub_phones data.bring.align.acoustic.path=<folder>), or one that learns from the recordings themselves "
        "(data/bring/align=learned)"
    )

    poor = 0.6  # voices it has learnt from: 0.9; other voices of espeak-ng: 0.4

    def __init__(self, corpus: Corpus, steps: int = 1200) -> None:
        """`steps`: how long it is trained; as many as for the metric, or it is trained twice."""
        self.corpus, self.steps = corpus, steps
        self.blank = 0

    def fingerprint(self, cache: Path) -> str:
        return self.judge(cache).version

    def needs(self, cache: Path) -> tuple[Artifact, ...]:
        return (PreparedCorpus(self.corpus, cache), self.judge(cache))

    def open(self, cache: Path) -> None:
        judge = self.judge(cache)
        self.model = judge.model
        self.vocabulary = {phone: i + 1 for i, phone in enumerate(judge.card["phones"])}

    def likely(self, audio: Tensor) -> Tensor:
        return self.model(levelled(audio)[None], torch.tensor([len(audio)])).log_softmax(-1)[0]

    def judge(self, cache: Path) -> "Recogniser":
        from ttsadapt.metrics.judges.recogniser import Recogniser

        return Recogniser(PreparedCorpus(self.corpus, cache).folder, cache, steps=self.steps)
