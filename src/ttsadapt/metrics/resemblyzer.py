"""Is it the right voice, asked of an encoder that never saw this corpus: Resemblyzer (GE2E, Wan et al. 2018)."""

from functools import cache, lru_cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import UserError
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.judged import cosine
from ttsadapt.metrics.signal import RATE, at_rate, levelled, recording, trimmed


class ResemblyzerSimilarity(UtteranceMetric):
    """Cosine x 100 to the utterance's own recording. Values lie high (two voices: 50 to 80) and compare with no other encoder's."""

    name: ClassVar[str] = "resemblyzer"
    compares = True
    unit: ClassVar[str] = "cos x 100"
    better: ClassVar[str] = "higher"
    higher_is_better = True

    @property
    def model(self) -> str:
        return "resemblyzer"

    @property
    def version(self) -> str:
        return installed("resemblyzer")

    def open(self, corpus: Path, cache: Path) -> None:
        _encoder()

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        return cosine(_embed(at_rate(audio, rate)), _reference(utterance.audio))


@cache
def _encoder() -> Any:
    try:
        from resemblyzer import VoiceEncoder
    except ImportError as error:
        raise UserError(
            f"metric resemblyzer needs the package resemblyzer ({error}): pip install 'ttsadapt[resemblyzer]', or drop it from metric=[...]"
        ) from error
    return VoiceEncoder("cpu", verbose=False)


@lru_cache(maxsize=512)
def _reference(path: Path) -> Tensor | None:
    return _embed(recording(path))


def _embed(audio: Tensor) -> Tensor | None:
    speech = trimmed(audio)
    if len(speech) < RATE // 10 or not speech.any():
        return None
    return torch.from_numpy(_encoder().embed_utterance(levelled(speech).numpy()))
