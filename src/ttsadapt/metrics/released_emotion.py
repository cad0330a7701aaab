"""Emotions heard by released classifiers that never saw the corpus: any of transformers', such as wav2vec 2.0 on IEMOCAP, and
emotion2vec (Ma et al. 2024) through FunASR."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.base import SILENT, Unknown, UtteranceMetric
from ttsadapt.metrics.pretrained import fingerprint, incomplete, lacking, loaded, located, named
from ttsadapt.metrics.signal import RATE, at_rate, levelled, trimmed

_SAME = {"ang": "angry", "hap": "happy", "neu": "neutral", "fea": "fearful", "dis": "disgusted", "sur": "surprised", "fear": "fearful"}
_SAME |= {"anger": "angry", "happiness": "happy", "sadness": "sad", "disgust": "disgusted", "surprise": "surprised", "joy": "happy"}


class ReleasedEmotion(UtteranceMetric):
    """says "accuracy": 100 when the emotion asked for is the likeliest, else 0. "probability": its probability in %, which moves first.

    NaN for an emotion that the classifier does not know (those of IEMOCAP know neither fear nor surprise), and for silence.
    """

    unit: ClassVar[str] = "%"
    steady: ClassVar[Mapping[str, float]] = {"silence": 1e-4}
    better: ClassVar[str] = "higher"
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    def __init__(self, path: str, says: Literal["accuracy", "probability"]) -> None:
        super().__init__()
        if says not in ("accuracy", "probability"):
            raise ConfigError(f"metric.{self.name}.says={says}: choose accuracy or probability")
        self.path, self.says, self.share = path, says, says == "accuracy"

    @property
    def model(self) -> str:
        return named(self.path)

    @property
    def revision(self) -> str:
        return fingerprint(self.path)

    @abstractmethod
    def probabilities(self, audio: Tensor) -> Mapping[str, float]:
        """(samples,) at RATE, trimmed and levelled -> {the classifier's own label: probability}"""

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        clip = trimmed(at_rate(audio, rate))
        if len(clip) < RATE // 10 or not clip.any():
            return SILENT
        with torch.inference_mode():
            heard = {common(label): p for label, p in self.probabilities(levelled(clip)).items()}
        wanted = common(utterance.emotion)
        if wanted not in heard:
            return Unknown(f"{utterance.emotion} is not among the classifier's emotions ({', '.join(sorted(heard))})")
        return 100 * heard[wanted] if self.says == "probability" else 100.0 * (max(heard, key=heard.__getitem__) == wanted)


def common(label: str) -> str:
    """One word for what classifiers and corpora call "hap", "Happy" or "开心/happy"."""
    plain = label.rpartition("/")[2].strip().lower()
    return _SAME.get(plain, plain)


class TransformersEmotion(ReleasedEmotion):
    """A model of transformers that classifies audio."""

    name: ClassVar[str] = "emotion_iemocap"

    def __init__(self, path: str = "superb/wav2vec2-base-superb-er", says: Literal["accuracy", "probability"] = "accuracy") -> None:
        super().__init__(path, says)

    def missing(self) -> str | None:
        return incomplete(self.path, "metric.emotion_iemocap.path")

    def probabilities(self, audio: Tensor) -> Mapping[str, float]:
        extractor, model = _classifier(self.path)
        logits = model(**extractor(audio.numpy(), sampling_rate=RATE, return_tensors="pt")).logits[0]
        return {model.config.id2label[i]: float(p) for i, p in enumerate(logits.softmax(-1))}


class Emotion2Vec(ReleasedEmotion):
    """emotion2vec+; "other" and "<unk>" are answers too, and misses."""

    name: ClassVar[str] = "emotion2vec"

    def __init__(self, path: str = "emotion2vec/emotion2vec_plus_large", says: Literal["accuracy", "probability"] = "accuracy") -> None:
        super().__init__(path, says)

    def missing(self) -> str | None:
        if find_spec("funasr") is None:
            return "emotion2vec needs the package funasr: pip install funasr"
        return lacking(self.path, "metric.emotion2vec.path", ("config.yaml", "model.pt"))

    def probabilities(self, audio: Tensor) -> Mapping[str, float]:
        (found,) = _emotion2vec(self.path).generate(audio.numpy(), granularity="utterance", extract_embedding=False, disable_pbar=True)
        return dict(zip(found["labels"], map(float, found["scores"]), strict=True))


@lru_cache(maxsize=2)
def _classifier(path: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    model = loaded(AutoModelForAudioClassification, path)
    return AutoFeatureExtractor.from_pretrained(str(located(path)), local_files_only=True), model


@lru_cache(maxsize=2)
def _emotion2vec(path: str) -> Any:
    from funasr import AutoModel

    return AutoModel(model=str(located(path)), device="cpu", disable_update=True, disable_pbar=True)
