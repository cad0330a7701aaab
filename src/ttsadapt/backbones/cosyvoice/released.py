"""Networks of the releases that stay as they are: the speech tokenizer and the speaker encoder, by onnxruntime."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.compliance import kaldi

from ttsadapt.backbones.speakers import spread
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import CheckpointError, DataError, TooLong

RATE = 16000
"""Hz that both networks hear"""
LONGEST = 30
"""seconds that the speech tokenizer was made for"""


class Network:
    """An onnx file; a session is opened when it is first needed, in each process its own."""

    def __init__(self, path: str, key: str, inputs: int, threads: int) -> None:
        self.path, self.key, self.inputs, self.threads = Path(path).expanduser(), key, inputs, threads
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}

    def __call__(self, *values: NDArray[Any]) -> NDArray[Any]:
        self.open()
        named = {given.name: value for given, value in zip(self._session.get_inputs(), values)}
        return self._session.run(None, named)[0]

    def open(self) -> None:
        if self._session is None:
            self._session = self._opened()

    def _opened(self) -> Any:
        import onnxruntime

        if not self.path.is_file():
            raise CheckpointError(f"{self.key}={self.path}: there is no such file; it is part of the release")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes differ from build to build
            raise CheckpointError(f"{self.key}={self.path} is not a whole onnx file ({str(error).splitlines()[0][:100]})") from error
        found = [given.name for given in session.get_inputs()]
        if len(found) != self.inputs:
            raise CheckpointError(f"{self.key}={self.path} takes {', '.join(found)}: it is not the file that this key means")
        return session


class SpeechTokenizer:
    """`speech_tokenizer_v1|v2|v3.onnx`: 16 kHz speech -> one token a step, from whisper's log-mel with 128 bands."""

    sample_rate = RATE

    def __init__(self, path: str, tokens: int = 6561, rate: float = 25.0, threads: int = 1) -> None:
        """`tokens`: size of its codebook; `rate`: tokens a second."""
        self.tokens, self.rate = tokens, rate
        self.network = Network(path, "backbone.frontend.codec.path", inputs=2, threads=threads)
        self._features: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_features": None}

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """Nothing is learnt, but the file is opened, so that a wrong one is found out now."""
        self.network.open()

    def encode(self, audio: Tensor) -> Tensor:
        """(samples,) at 16 kHz -> (steps,) long. TooLong beyond 30 s."""
        if len(audio) > LONGEST * RATE:
            raise TooLong(f"a recording of {len(audio) / RATE:.1f} s is longer than the {LONGEST} s that the speech tokenizer hears")
        if self._features is None:
            from transformers import WhisperFeatureExtractor

            self._features = WhisperFeatureExtractor(feature_size=128, sampling_rate=RATE)
        mel = self._features(audio.numpy(), sampling_rate=RATE, padding=False, return_tensors="np")["input_features"]  # (1, 128, T)
        codes = self.network(mel.astype(np.float32), np.array([mel.shape[2]], dtype=np.int32))
        tokens = torch.from_numpy(np.asarray(codes).reshape(-1).astype(np.int64))
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.tokens:
            raise CheckpointError(
                f"{self.network.key}={self.network.path} gives the token {int(tokens.max())}: backbone.frontend.codec.tokens={self.tokens} "
                "does not fit, or it is the tokenizer of another version"
            )
        return tokens

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was learnt."""


class CamPlus:
    """`campplus.onnx`: CAM++ speaker vectors from kaldi's 80 log-mel bands without their mean over time (Wang et al. 2023)."""

    def __init__(self, path: str, size: int = 192, recordings: int = 10, threads: int = 1) -> None:
        """`recordings`: how many of a speaker are averaged."""
        self.size, self.recordings = size, recordings
        self.network = Network(path, "backbone.frontend.speakers.path", inputs=1, threads=threads)

    def measure(self, audio: Tensor) -> Tensor:
        """(samples,) at 16 kHz -> (E,)"""
        if len(audio) < RATE // 2:
            raise DataError(f"a recording of {len(audio) / RATE:.2f} s is too short to tell a voice by: at least half a second is needed")
        bands = kaldi.fbank(audio[None], num_mel_bins=80, dither=0.0, sample_frequency=RATE)
        vector = torch.from_numpy(self.network((bands - bands.mean(0))[None].numpy())).flatten()
        if len(vector) != self.size:
            raise CheckpointError(f"{self.network.key}={self.network.path} gives {len(vector)} numbers, not {self.size}: another encoder")
        return vector

    def fit(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        return self.vectors(utterances)

    def vectors(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """{speaker: (E,)}, the mean over recordings."""
        rows: dict[str, list[Tensor]] = {}
        for utterance in Bar(spread(utterances, self.recordings), "voices", unit="utt", leave=False):
            rows.setdefault(utterance.speaker, []).append(self.measure(load(utterance.audio, RATE)))
        return {speaker: torch.stack(values).mean(0) for speaker, values in rows.items()}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was learnt."""
