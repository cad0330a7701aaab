"""Speaker vectors of transformers' x-vector models, such as WavLM-SV (Chen et al. 2022)."""

from functools import lru_cache
from typing import Any, ClassVar, Literal

from torch import Tensor

from ttsadapt.metrics.pretrained import incomplete, loaded, located
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.voices import ReleasedVoices


class WavLMSimilarity(ReleasedVoices):
    """Of one clip at a time. Not the SIM of seed-tts-eval, whose head and tuned WavLM-large are a file of their own."""

    name: ClassVar[str] = "wavlm_sv"

    def __init__(
        self, path: str = "microsoft/wavlm-base-plus-sv", reference: Literal["voice", "recording"] = "voice", recordings: int = 16
    ) -> None:
        super().__init__(path, reference, recordings)

    def missing(self) -> str | None:
        return incomplete(self.path, "metric.wavlm_sv.path")

    def embed(self, audio: Tensor) -> Tensor:
        extractor, model = opened(self.path)
        return model(**extractor(audio.numpy(), sampling_rate=RATE, return_tensors="pt")).embeddings[0]


@lru_cache(maxsize=2)
def opened(path: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    model = loaded(AutoModelForAudioXVector, path)
    return AutoFeatureExtractor.from_pretrained(str(located(path)), local_files_only=True), model
