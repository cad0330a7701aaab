"""Utterance -> phones, durations, pitch, energy, mel: what FastSpeech 2 learns from (Ren et al. 2021, section 2.3)."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Batch, Frontend, Request
from ttsadapt.backbones.parts import places
from ttsadapt.backbones.speakers import SpeakerStatistics, evenly, level, log_f0
from ttsadapt.backbones.voices import Voices
from ttsadapt.bars import Bar
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.audio import load
from ttsadapt.data.emotions import meant
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError
from ttsadapt.text.phones import phonemize, split_stress, unlike

logger = logging.getLogger(__name__)

PAD = 0
"""index of padding in the phone table"""


class FastSpeech2Frontend(Frontend):
    """Tables of phones, emotions and voices, and the scales of pitch, energy and mel, all fitted on the pretraining data."""

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 256,
        n_mels: int = 80,
        high: float = 8000.0,
        emotion_aliases: Mapping[str, str] | None = None,
        fitted_on: int = 200,
        statistics: Voices | None = None,
    ) -> None:
        """`emotion_aliases`: {new emotion: known one whose embedding it shares}; `fitted_on`: utterances read for the scales.

        `statistics`: what a voice is described by; None: `SpeakerStatistics`.
        """
        self.mel = MelSpectrogram(sample_rate, n_fft, hop, n_mels, high=high)
        self.statistics = statistics or SpeakerStatistics(self.mel)
        self.emotion_aliases = dict(emotion_aliases or {})
        self.fitted_on = fitted_on
        self.symbols: list[str] = []  # most frequent first; index + 1 in the table
        self.emotions: list[str] = []
        self.speakers: dict[str, Tensor] = {}
        self.scales: dict[str, Tensor] = {}  # {"pitch" | "energy" | "mel": (2,) or (2, n_mels), mean and deviation}
        self.replaced: Counter[str] = Counter()

    @property
    def sample_rate(self) -> int:
        return self.mel.sample_rate

    # Fitting -----------------------------------------------------------------------------------------------------------

    def refuse(self, utterances: Sequence[Utterance]) -> None:
        for utterance in utterances:
            self._aligned(utterance)

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.refuse(utterances)
        symbols = Counter(split_stress(phone.symbol)[0] for u in utterances for phone in u.phones)
        self.symbols = sorted(symbols, key=lambda s: (-symbols[s], s))
        self.emotions = sorted({u.emotion for u in utterances})
        self.speakers = self.statistics.fit(utterances)
        ordered = sorted(utterances, key=lambda u: u.id)
        self._fit_scales([ordered[i] for i in evenly(len(ordered), self.fitted_on)])

    def _fit_scales(self, utterances: Sequence[Utterance]) -> None:
        self.scales = {}
        rows: dict[str, list[Tensor]] = {"pitch": [], "energy": [], "mel": []}
        for utterance in Bar(utterances, "pitch and energy", unit="utt", leave=False):
            mel, durations, pitch = self._analysed(utterance)
            rows["pitch"].append(pitch[~pitch.isnan()])
            rows["energy"].append(phone_means(level(mel), durations))
            rows["mel"].append(mel)
        for name, values in rows.items():
            joined = torch.cat(values)
            std = joined.std(0, correction=0).nan_to_num(1.0).clamp_min(0.05)
            self.scales[name] = torch.stack([joined.mean(0).nan_to_num(0.0), std])

    @property
    def known_speakers(self) -> list[str]:
        return sorted(self.speakers)

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Add the voices of these training recordings. A voice that is known keeps its vector: the base must not shift."""
        new = [u for u in utterances if u.speaker not in self.speakers]
        self.speakers |= self.statistics.vectors(new)

    def state(self) -> dict[str, Any]:
        return {
            "symbols": list(self.symbols),
            "emotions": list(self.emotions),
            "speakers": dict(self.speakers),
            "scales": dict(self.scales),
            "statistics": self.statistics.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.symbols, self.emotions = list(state["symbols"]), list(state["emotions"])
        self.speakers, self.scales = dict(state["speakers"]), dict(state["scales"])
        self.statistics.restore(state["statistics"])

    # One utterance -----------------------------------------------------------------------------------------------------

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """phones, stress, durations (P,) long; pitch, energy (P,) z-scores; mel (T, n_mels) nats; speaker (E,); emotion (1,)."""
        speaker, emotion = self.voice(utterance.speaker), self.emotion(utterance.emotion)
        mel, durations, pitch = self._analysed(utterance)
        phones, stress = self.encode([p.symbol for p in utterance.phones])
        return {
            "phones": phones,
            "stress": stress,
            "durations": durations,
            "pitch": self._scaled("pitch", interpolated(phone_means(pitch, durations))),
            "energy": self._scaled("energy", phone_means(level(mel), durations)),
            "mel": mel,
            "speaker": speaker,
            "emotion": torch.tensor([emotion]),
        }

    def _analysed(self, utterance: Utterance) -> tuple[Tensor, Tensor, Tensor]:
        """mel (T, n_mels), durations (P,), log F0 (T,) with NaN where unvoiced."""
        self._aligned(utterance)
        audio = load(utterance.audio, self.sample_rate)
        mel = self.mel(audio)
        seconds, end = len(audio) / self.sample_rate, utterance.phones[-1].end
        if abs(seconds - end) > 0.25:
            raise DataError(
                f"the phones of utterance {utterance.id} end at {end:.2f} s but {utterance.audio} lasts {seconds:.2f} s: "
                "align the data again, or remove the utterance"
            )
        try:
            durations = frame_durations(utterance.phones, len(mel), self.sample_rate / self.mel.hop)
        except ValueError as error:
            raise DataError(f"utterance {utterance.id}: {error}: remove it or align the data again") from error
        return mel, durations, log_f0(audio, self.mel)

    def _aligned(self, utterance: Utterance) -> None:
        if not utterance.phones:
            raise DataError(
                f"utterance {utterance.id} ({utterance.audio}) does not say when each phone is said, which this backbone needs: "
                "data/bring/align=learned learns it from the recordings, or take a backbone without durations (backbone=qwen_tts_tiny)"
            )

    def _scaled(self, name: str, values: Tensor) -> Tensor:
        mean, std = self.scales[name]
        return ((values - mean) / std).nan_to_num(0.0)  # an utterance without any voiced frame has the average pitch

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        return {"frames": len(features["mel"]), "phones": len(features["phones"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """Features padded to (B, P) and (B, T); "phone" and "frame" as in `real`."""
        batch: Batch = {
            name: pad_sequence([item[name] for item in items], batch_first=True)
            for name in ("phones", "stress", "durations", "pitch", "energy", "mel")
        }
        batch["speaker"] = torch.stack([item["speaker"] for item in items])
        batch["emotion"] = torch.cat([item["emotion"] for item in items])
        return batch | real({"phone": [len(item["phones"]) for item in items], "frame": [len(item["mel"]) for item in items]})

    # Asking for speech -------------------------------------------------------------------------------------------------

    def request(self, utterance: Utterance) -> Request:
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        self.emotion(utterance.emotion)  # an unknown one is better refused before synthesis starts
        vector = self.voice(utterance.speaker)
        return Request(utterance.id, phones, vector, utterance.emotion, utterance.language, voice=utterance.speaker)

    def voice(self, speaker: str) -> Tensor:
        """(E,) the conditioning vector."""
        if speaker not in self.speakers:
            raise DataError(f"unknown speaker {speaker!r}: known are {', '.join(sorted(self.speakers))}; enroll it from recordings first")
        return self.speakers[speaker]

    def emotion(self, name: str) -> int:
        """Index into the emotion table."""
        known = self.emotion_aliases.get(name, name)
        if known not in self.emotions:
            raise DataError(
                f"unknown emotion {known!r}: the model knows {', '.join(self.emotions)}; "
                f"ask for one of these, or train with +backbone.frontend.emotion_aliases.{name}={meant(name, self.emotions)}"
            )
        return self.emotions.index(known)

    def encode(self, phones: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Symbols as in `Phone.symbol` -> (P,) indices into the phone table, (P,) stress 0, 1 or 2."""
        pairs = [split_stress(symbol) for symbol in phones]
        indices = [self._index(symbol) for symbol, _ in pairs]
        return torch.tensor(indices, dtype=torch.long), torch.tensor([stress for _, stress in pairs], dtype=torch.long)

    def tokens(self, phones: Sequence[str]) -> dict[str, Tensor]:
        """What the encoder takes, each (P,)."""
        indices, stress = self.encode(phones)
        return {"phones": indices, "stress": stress}

    def _index(self, symbol: str) -> int:
        if symbol in self.symbols:
            return self.symbols.index(symbol) + 1
        closest = min(range(len(self.symbols)), key=lambda i: unlike(symbol, self.symbols[i]))
        if not self.replaced:
            logger.warning(
                "phone %r was not in the pretraining data: spoken as %r (this and further ones are counted in frontend.replaced)",
                symbol,
                self.symbols[closest],
            )
        self.replaced[symbol] += 1
        return closest + 1


def real(counts: Mapping[str, Sequence[int]]) -> Batch:
    """What is not padding. {"phone": lengths of B utterances} -> phone_lengths (B,), phone_row and phone_place (N,), in order."""
    batch: Batch = {}
    for kind, lengths in counts.items():
        batch[f"{kind}_lengths"] = torch.tensor(list(lengths))
        batch[f"{kind}_row"], batch[f"{kind}_place"] = places(lengths)
    return batch


def frame_durations(phones: Sequence[Phone], frames: int, rate: float) -> Tensor:
    """(P,) long, at least 1 each, with sum `frames`. A frame belongs to the phone that holds its centre, t / rate seconds.

    Phones that hold no centre borrow one frame from what follows (or, at the end, from what precedes).
    """
    count = len(phones)
    if count > frames:
        raise ValueError(f"{count} phones do not fit into {frames} frames")
    order = np.arange(1, count + 1)
    ends = np.ceil(np.array([p.end for p in phones]) * rate - 1e-6).astype(int)
    ends[-1] = frames
    ends = np.maximum.accumulate(ends - order).clip(0) + order  # each at least one after the one before
    ends = np.minimum(ends, frames - count + order)
    return torch.from_numpy(np.diff(ends, prepend=0))


def phone_means(values: Tensor, durations: Tensor) -> Tensor:
    """(T,), (P,) -> (P,): mean over each phone's frames that are not NaN; NaN where there is none."""
    owner = torch.repeat_interleave(torch.arange(len(durations)), durations)
    seen = ~values.isnan()
    zeros = torch.zeros(len(durations))
    return zeros.index_add(0, owner, values.nan_to_num(0.0)) / zeros.index_add(0, owner, seen.float())


def interpolated(values: Tensor) -> Tensor:
    """(P,) with NaN filled linearly between neighbours, flat at both ends; all NaN stays so."""
    seen = ~values.isnan()
    if not seen.any():
        return values
    at = np.arange(len(values))
    return torch.from_numpy(np.interp(at, at[seen.numpy()], values[seen].numpy())).float()
