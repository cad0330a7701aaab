"""Whisper, or any CTC model, through transformers."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttsadapt.metrics.pretrained import fingerprint, incomplete, loaded, located, named
from ttsadapt.metrics.recognisers.base import Recogniser
from ttsadapt.metrics.recognisers.normaliser import normalised
from ttsadapt.metrics.signal import RATE, trimmed


class Released(Recogniser):
    """A folder, or a name that the hub's cache knows, of an encoder-decoder such as Whisper or of a CTC model with its tokeniser.

    Greedy, one clip at a time: padding would change what is heard (and Whisper pads to its 30 s by itself).
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def model(self) -> str:
        return named(self.path)

    @property
    def version(self) -> str:
        return fingerprint(self.path)

    def missing(self, key: str) -> str | None:
        return incomplete(self.path, f"{key}.path")

    def transcribe(self, audio: Tensor, language: str) -> str:
        clip = trimmed(audio)
        if len(clip) < RATE // 20 or not clip.any():
            return ""
        return normalised(_said(self.path, clip.numpy().tobytes(), language), language)


@lru_cache(maxsize=512)
def _said(path: str, samples: bytes, language: str) -> str:
    """Of float32 samples: several metrics ask for the same clip."""
    listener = opened(path)
    audio = torch.frombuffer(bytearray(samples), dtype=torch.float32).numpy()
    asked: dict[str, Any] = {}
    if listener.type == "seq2seq_whisper":
        asked = {"generate_kwargs": {"do_sample": False, "num_beams": 1} | _language(listener, language)}
        if len(audio) > 30 * RATE:
            asked["return_timestamps"] = True  # how Whisper finds its way through more than one window
    with torch.inference_mode():
        return str(listener({"raw": audio, "sampling_rate": RATE}, **asked)["text"])


def _language(listener: Any, language: str) -> dict[str, str]:
    """An English-only Whisper takes no language."""
    known = getattr(listener.model.generation_config, "is_multilingual", False)
    return {"language": language.partition("-")[0], "task": "transcribe"} if known else {}


@lru_cache(maxsize=2)
def opened(path: str) -> Any:
    import transformers as hf

    folder = str(located(path))
    whole = type(hf.AutoConfig.from_pretrained(folder, local_files_only=True)) in hf.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    model = loaded(hf.AutoModelForSpeechSeq2Seq if whole else hf.AutoModelForCTC, path)
    words: Any = hf.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    features: Any = hf.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    return hf.AutomaticSpeechRecognitionPipeline(model, tokenizer=words, feature_extractor=features, device=torch.device("cpu"))
