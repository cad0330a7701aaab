"""What a model is told about a voice: statistics of its recordings, not the output of any encoder that scores similarity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyworld
import torch
from torch import Tensor
from torchaudio.functional import create_dct

from ttsadapt.bars import Bar
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError

LOUD = 3.5
"""nats below an utterance's loudest frames (30 dB): quieter frames say more about the room than about the voice"""


def log_f0(audio: Tensor, mel: MelSpectrogram, low: float = 60.0, high: float = 600.0) -> Tensor:
    """(samples,) -> (frames,) natural logarithm of Hz on the grid of `mel`, NaN where unvoiced."""
    samples = audio.double().numpy()
    period = 1000 * mel.hop / mel.sample_rate
    # Decimated by 4, DIO costs a fifth; StoneMask then refines each value on the full signal.
    coarse, times = pyworld.dio(samples, mel.sample_rate, f0_floor=low, f0_ceil=high, frame_period=period, speed=4)
    hertz = pyworld.stonemask(samples, coarse, times, mel.sample_rate)
    values = np.full(mel.frames(len(samples)), np.nan)
    kept = min(len(values), len(hertz))
    values[:kept] = np.where(hertz[:kept] > 0, np.log(np.maximum(hertz[:kept], 1.0)), np.nan)
    return torch.from_numpy(values).float()


def level(frames: Tensor) -> Tensor:
    """(T, n_mels) log-mel -> (T,) log of the frame's L2 norm, in nats."""
    return 0.5 * torch.logsumexp(2 * frames, dim=-1)


class SpeakerStatistics:
    """Mean and deviation of mel cepstra over loud frames and of log F0 over voiced frames, averaged over recordings.

    Every entry is z-normalised over the speakers of `fit`, so one step of an entry is as large as one step between voices.
    """

    def __init__(self, mel: MelSpectrogram, cepstra: int = 20, recordings: int = 10, limit: float = 4.0) -> None:
        """`recordings`: how many of a speaker are looked at; `limit`: normalised entries are clamped to +-limit."""
        self.mel, self.recordings, self.limit = mel, recordings, limit
        self.dct = create_dct(cepstra + 1, mel.n_mels, norm="ortho")[:, 1:]  # without c0: loudness is not the voice
        self.size = 2 * cepstra + 2
        self.mean, self.std = torch.zeros(self.size), torch.ones(self.size)

    def measure(self, audio: Tensor) -> Tensor:
        """(samples,) -> (E,) of one recording, not normalised; NaN in the last two when nothing is voiced."""
        frames = self.mel(audio)
        loudness = level(frames)
        cepstra = frames[loudness > loudness.quantile(0.95) - LOUD] @ self.dct
        pitch = log_f0(audio, self.mel)
        pitch = pitch[~pitch.isnan()]
        moments = torch.stack([pitch.mean(), pitch.std(correction=0)])
        return torch.cat([cepstra.mean(0), cepstra.std(0, correction=0), moments])

    def fit(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """Statistics over the speakers of the pretraining data; returns their vectors."""
        raw = self._raw(utterances)
        if not raw:
            raise DataError("speaker statistics need at least one utterance: the pretraining data is empty")
        table = torch.stack(list(raw.values()))
        seen = ~table.isnan()
        count = seen.sum(0).clamp_min(1)
        self.mean = table.nan_to_num().sum(0) / count
        deviations = torch.where(seen, table - self.mean, 0.0)
        # The floor keeps a corpus of one voice, or of voices that agree in an entry, from dividing by nothing.
        self.std = (deviations.square().sum(0) / count).sqrt().clamp_min(0.02)
        return {name: self.normalised(values) for name, values in raw.items()}

    def vectors(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """{speaker: (E,)}, normalised and clamped; whispered voices get the average pitch."""
        return {name: self.normalised(raw) for name, raw in self._raw(utterances).items()}

    def normalised(self, raw: Tensor) -> Tensor:
        return ((raw - self.mean) / self.std).nan_to_num(0.0).clamp(-self.limit, self.limit)

    def _raw(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        chosen = spread(utterances, self.recordings)
        rows: dict[str, list[Tensor]] = {}
        for utterance in Bar(chosen, "voices", unit="utt", leave=False, disable=not chosen):
            audio = load(utterance.audio, self.mel.sample_rate)
            rows.setdefault(utterance.speaker, []).append(self.measure(audio))
        return {speaker: torch.stack(values).nanmean(0) for speaker, values in rows.items()}

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.std = state["mean"], state["std"]


def spread(utterances: Sequence[Utterance], each: int) -> list[Utterance]:
    """At most `each` utterances of every speaker, evenly over its emotions and recordings, whatever the order given."""
    speakers: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda u: (u.speaker, u.emotion, u.id)):
        speakers.setdefault(utterance.speaker, []).append(utterance)
    return [mine[i] for mine in speakers.values() for i in evenly(len(mine), each)]


def evenly(n: int, k: int) -> list[int]:
    """At most k of range(n), evenly spread."""
    return [(2 * i + 1) * n // (2 * k) for i in range(k)] if n > k else list(range(n))
