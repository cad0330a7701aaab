"""Any CTC model of transformers (wav2vec 2.0, HuBERT, WavLM ...) as an acoustic model, of characters or of phones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsadapt.data.alignment.ctc import Acoustic
from ttsadapt.data.hashes import Hashes
from ttsadapt.data.pcm import resample
from ttsadapt.errors import CheckpointError, ConfigError
from ttsadapt.files import digest
from ttsadapt.metrics.signal import RATE

_MARKS = {"<pad>", "<s>", "</s>", "<unk>", "[PAD]", "[UNK]", "|", " ", ""}


class HubCTC(Acoustic):
    """A folder that `save_pretrained` wrote, or an id on the hub. Long recordings are heard in windows that overlap."""

    def __init__(self, path: str, revision: str | None = None, device: str = "cpu", window: float = 30.0, context: float = 2.0) -> None:
        """`revision`: of a model on the hub. `window`: seconds heard at once, of which `context` at both ends are not used."""
        if not 0 <= 2 * context < window:
            told = f"context is {context:g} and window {window:g}: give a context of 0 or more, and a window of more than twice that"
            raise ConfigError(f"data.bring.align.acoustic: {told}")
        self.path, self.revision, self.device = str(path), revision, device
        self.window, self.context = window, context

    def fingerprint(self, cache: Path) -> str:
        folder = Path(self.path).expanduser()
        return digest([Hashes(cache).of([folder]) if folder.is_dir() else [self.path, self.revision], self.window, self.context])

    def open(self, cache: Path) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        place = str(Path(self.path).expanduser()) if Path(self.path).expanduser().is_dir() else self.path
        try:
            self.extractor = AutoFeatureExtractor.from_pretrained(place, revision=self.revision or "main")
            tokens = AutoTokenizer.from_pretrained(place, revision=self.revision or "main")
            self.model = AutoModelForCTC.from_pretrained(place, revision=self.revision or "main").eval().to(self.device)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            told = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"data.bring.align.acoustic.path={self.path} cannot be opened as a CTC model of transformers ({told}): "
                "give a folder with config.json, weights, preprocessor_config.json and vocab.json, or an id on the hub"
            ) from error
        self.blank = int(tokens.pad_token_id if tokens.pad_token_id is not None else self.model.config.pad_token_id)
        known: dict[str, int] = tokens.get_vocab()
        self.vocabulary = {t: i for t, i in known.items() if i != self.blank and t not in _MARKS and i < self.model.config.vocab_size}

    @torch.inference_mode()
    def likely(self, audio: Tensor) -> Tensor:
        rate = int(self.extractor.sampling_rate)
        heard = resample(audio.float().numpy(), RATE, rate)
        whole, margin = round(self.window * rate), round(self.context * rate)
        if len(heard) <= whole:
            return self._log_probs(heard)
        parts, step = [], whole - 2 * margin
        for start in range(0, max(len(heard) - 2 * margin, 1), step):
            at = min(start, len(heard) - whole)  # the last one is as long as the others: a model cannot hear a few samples
            likely = self._log_probs(heard[at : at + whole])
            per = len(likely) / whole
            first = 0 if start == 0 else round((start - at + margin) * per)
            last = len(likely) if start + whole >= len(heard) else round((margin + step) * per)
            parts.append(likely[first:last])
        return torch.cat(parts)

    def _log_probs(self, heard: Any) -> Tensor:
        inputs = self.extractor(heard, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return self.model(inputs["input_values"].to(self.device)).logits[0].float().log_softmax(-1).cpu()
