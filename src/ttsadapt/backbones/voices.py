"""Vectors of voices from released speaker encoders, in place of statistics of the recordings.

GE2E (Wan et al. 2018; the vectors that HyperTTS is conditioned on) and ECAPA-TDNN (Desplanques et al. 2020, through speechbrain).
A metric that asks the same encoder scores what the model was told, not what it learnt: score with another one.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.official import OfficialFile
from ttsadapt.backbones.speakers import spread
from ttsadapt.bars import Bar
from ttsadapt.codecs.speechbrain_hub import from_speechbrain
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError

RATE = 16000
"""Hz, of both encoders"""


class Voices(Protocol):
    """Recordings -> a vector for each speaker."""

    size: int

    def fit(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """Scales over the speakers of the pretraining data, and their vectors: {speaker: (size,)}."""

    def vectors(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """{speaker: (size,)} by what was fitted."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class EncodedVoices:
    """The mean of an encoder's vectors over a speaker's recordings. Nothing is fitted."""

    size: int

    def __init__(self, recordings: int = 10) -> None:
        """`recordings`: how many of a speaker are heard."""
        self.recordings = recordings

    def embed(self, audio: Tensor) -> Tensor:
        """(samples,) at RATE -> (size,)."""
        raise TypeError(f"{type(self).__name__} embeds nothing")

    def fit(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        if not utterances:
            raise DataError("the speaker encoder needs at least one utterance: the pretraining data is empty")
        return self.vectors(utterances)

    def vectors(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        rows: dict[str, list[Tensor]] = {}
        for utterance in Bar(spread(utterances, self.recordings), "voices", unit="utt", leave=False):
            rows.setdefault(utterance.speaker, []).append(self.embed(load(utterance.audio, RATE)))
        return {speaker: torch.stack(values).mean(0) for speaker, values in rows.items()}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


class GE2EVoices(EncodedVoices):
    """The GE2E encoder of CorentinJ/Real-Time-Voice-Cloning and of Resemblyzer, from its file {"model_state": ...}.

    40 mel bands (power, 25 ms windows every 10 ms), partials of 1.6 s that overlap by half, mean, length 1. HyperTTS does not
    make the mean over a speaker's recordings a unit vector again, nor does this.
    """

    size = 256
    partial, step, hop = 160, 80, 160
    """frames of a partial and between two of them; samples between two frames"""

    def __init__(self, path: str, recordings: int = 10) -> None:
        """`path`: `encoder.pt`, or the `pretrained.pt` of an installed Resemblyzer."""
        super().__init__(recordings)
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "encoder"}

    @cached_property
    def encoder(self) -> "GE2E":
        file = OfficialFile(Path(self.path), inside="model_state", bookkeeping=("step", "optimizer_state"))
        state = {n: t.float() for n, t in file.tensors(n for n in file.shapes if n.startswith(("lstm.", "linear.")))}
        model = GE2E()
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path} is not a GE2E encoder of 40 bands and 3 x 256: {str(error).splitlines()[-1].strip()}"
            ) from error
        return model.eval()

    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        frames = librosa.feature.melspectrogram(y=audio.numpy(), sr=RATE, n_fft=400, hop_length=self.hop, n_mels=40)
        mel = torch.from_numpy(frames).float().T  # (T, 40)
        # A last partial counts when three quarters of it are there; the rest of it is silence.
        count = 1 + max((len(mel) - 3 * self.partial // 4) // self.step, 0)
        mel = F.pad(mel, (0, 0, 0, max((count - 1) * self.step + self.partial - len(mel), 0)))
        parts = torch.stack([mel[start : start + self.partial] for start in range(0, count * self.step, self.step)])
        return F.normalize(self.encoder(parts).mean(0), dim=0)


class GE2E(nn.Module):
    """(B, T, 40) -> (B, 256) of length 1, non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mel)
        return F.normalize(self.linear(hidden[-1]).relu(), dim=1)


class SpeechbrainVoices(EncodedVoices):
    """A speaker encoder of speechbrain, such as speechbrain/spkrec-ecapa-voxceleb (192 numbers), of length 1."""

    def __init__(self, source: str = "speechbrain/spkrec-ecapa-voxceleb", size: int = 192, recordings: int = 10) -> None:
        """`source`: a hub id or a folder with hyperparams.yaml; `size`: of its vectors."""
        super().__init__(recordings)
        self.source, self.size = source, size

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "encoder"}

    @cached_property
    def encoder(self) -> Any:
        return from_speechbrain("speechbrain.inference.classifiers", "EncoderClassifier", self.source)

    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        vector = self.encoder.encode_batch(audio[None]).flatten()
        if len(vector) != self.size:
            raise CheckpointError(f"{self.source} gives vectors of {len(vector)} numbers: set size={len(vector)} beside source")
        return F.normalize(vector, dim=0)
