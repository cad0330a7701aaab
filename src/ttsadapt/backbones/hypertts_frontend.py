"""What HyperTTS's backbone learns from: phones, mel, energy and the wavelets of pitch; phone times only where they are given."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import librosa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Batch, Request
from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend, frame_durations, interpolated, real
from ttsadapt.backbones.pitch import SCALES, moments_of, wavelets
from ttsadapt.backbones.speakers import evenly, log_f0
from ttsadapt.backbones.voices import Voices
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError, TooLong
from ttsadapt.text.phones import phonemize, split_stress, unlike

logger = logging.getLogger(__name__)

FRAMEWISE = ("mel", "energy", "pitch", "voiced", "cwt")


class PhoneTable(Protocol):
    """Phones -> rows of an embedding."""

    size: int

    def fit(self, phones: Iterable[str]) -> None: ...

    def indices(self, phone: str) -> list[int]:
        """One or several rows, 0 never among them: it is padding."""

    def state(self) -> list[str]: ...

    def restore(self, state: list[str]) -> None: ...


class FittedTable:
    """The phones of the pretraining data with their stress, most frequent first."""

    def __init__(self) -> None:
        self.symbols: list[str] = []
        self.replaced: Counter[str] = Counter()

    @property
    def size(self) -> int:
        return len(self.symbols) + 1

    def fit(self, phones: Iterable[str]) -> None:
        counts = Counter(phones)
        self.symbols = sorted(counts, key=lambda s: (-counts[s], s))

    def indices(self, phone: str) -> list[int]:
        """What was never heard is spoken as what is most like it; the first time that is said aloud."""
        return [self.symbols.index(phone if phone in self.symbols else self._closest(phone)) + 1]

    def _closest(self, phone: str) -> str:
        bare, stress = split_stress(phone)
        known = {s: split_stress(s) for s in self.symbols}
        closest = min(known, key=lambda s: (unlike(bare, known[s][0]), abs(stress - known[s][1])))
        if not self.replaced:
            logger.warning("phone %r was not in the pretraining data: spoken as %r (further ones are counted in replaced)", phone, closest)
        self.replaced[phone] += 1
        return closest

    def state(self) -> list[str]:
        return list(self.symbols)

    def restore(self, state: list[str]) -> None:
        self.symbols = list(state)


class HyperTTSFrontend(FastSpeech2Frontend):
    """As FastSpeech 2's, frame by frame. With `learn_durations` recordings need no phone times: the model finds them."""

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 256,
        n_mels: int = 80,
        high: float = 8000.0,
        statistics: Voices | None = None,
        table: PhoneTable | None = None,
        learn_durations: bool = True,
        emotions: bool = False,
        emotion_aliases: Mapping[str, str] | None = None,
        trim_db: float | None = None,
        max_frames: int = 3000,
        max_phones: int = 3000,
        fitted_on: int = 200,
    ) -> None:
        """`table`: phones by index, None for one that is fitted; `emotions`: whether the model is told them; `trim_db`: leave
        out silence at both ends, this far below the loudest frame (only where durations are learnt); `fitted_on`: utterances
        read for the scales."""
        super().__init__(sample_rate, n_fft, hop, n_mels, high, emotion_aliases, fitted_on, statistics)
        if trim_db is not None and not learn_durations:
            raise DataError("backbone.frontend.trim_db moves the phone times that learn_durations=false reads: set trim_db=null")
        self.table = table or FittedTable()
        self.learn_durations, self.with_emotions, self.trim_db = learn_durations, emotions, trim_db
        self.max_frames, self.max_phones = max_frames, max_phones

    # Fitting -----------------------------------------------------------------------------------------------------------

    def refuse(self, utterances: Sequence[Utterance]) -> None:
        if not self.learn_durations:
            super().refuse(utterances)

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.table.fit(phone for u in utterances for phone in self.spoken(u))
        self.emotions = sorted({u.emotion for u in utterances}) if self.with_emotions else []
        self.speakers = self.statistics.fit(utterances)
        ordered = sorted(utterances, key=lambda u: u.id)
        self._measure([ordered[i] for i in evenly(len(ordered), self.fitted_on)])

    def _measure(self, utterances: Sequence[Utterance]) -> None:
        """Means and deviations; the lowest and highest energy, in deviations, between which its bins lie."""
        rows: dict[str, list[Tensor]] = {"pitch": [], "energy": [], "mel": []}
        for utterance in Bar(utterances, "pitch and energy", unit="utt", leave=False):
            audio = self._audio(utterance)
            mel, energy = self._spectrum(audio)
            pitch = log_f0(audio, self.mel)
            rows["pitch"].append(pitch[~pitch.isnan()])
            rows["energy"].append(energy)
            rows["mel"].append(mel)
        joined = {name: torch.cat(values) for name, values in rows.items()}
        self.scales = {
            name: torch.stack([v.mean(0).nan_to_num(0.0), v.std(0, correction=0).nan_to_num(1.0).clamp_min(0.05)])
            for name, v in joined.items()
        }
        energy = self._scaled("energy", joined["energy"])
        self.scales["energy_range"] = torch.stack([energy.min(), energy.max()])

    def state(self) -> dict[str, Any]:
        return super().state() | {"symbols": self.table.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.table.restore(state["symbols"])

    # One utterance -----------------------------------------------------------------------------------------------------

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """phones (P,) long; mel (T, n_mels) nats; energy, pitch (T,) deviations; voiced (T,) bool; cwt (T, SCALES) and moments (2,)
        of log F0; speaker (E,); emotion (1,); durations (P,) long where they are given. TooLong beyond the position tables."""
        speaker, emotion = self.voice(utterance.speaker), self.emotion(utterance.emotion)
        audio = self._audio(utterance)
        mel, energy = self._spectrum(audio)
        phones = self.tokens(self.spoken(utterance))["phones"]
        self._check(utterance, len(phones), len(mel))
        given = {} if self.learn_durations else {"durations": self._given(utterance, len(mel), len(audio))}
        return {
            "phones": phones,
            "mel": mel,
            "energy": self._scaled("energy", energy),
            **self._melody(log_f0(audio, self.mel)),
            "speaker": speaker,
            "emotion": torch.tensor([emotion]),
            **given,
        }

    def _audio(self, utterance: Utterance) -> Tensor:
        audio = load(utterance.audio, self.sample_rate)
        if self.trim_db is None:
            return audio
        _, (start, end) = librosa.effects.trim(audio.numpy(), top_db=self.trim_db, frame_length=self.mel.n_fft, hop_length=self.mel.hop)
        return audio[start:end]

    def _spectrum(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(T, n_mels) log-mel, (T,) L2 norm of the magnitudes."""
        magnitude = self.mel.magnitude(audio)
        return (magnitude @ self.mel.bands).clamp_min(self.mel.floor).log(), magnitude.norm(dim=-1)

    def _melody(self, logarithm: Tensor) -> dict[str, Tensor]:
        """(T,) log Hz with NaN where unvoiced. Between voiced frames Hz are interpolated, as the authors do."""
        voiced = ~logarithm.isnan()
        if not voiced.any():
            zero = torch.zeros(len(logarithm))
            return {"pitch": zero, "voiced": voiced, "cwt": zero[:, None].repeat(1, SCALES), "moments": self.scales["pitch"].clone()}
        continuous = interpolated(logarithm.exp()).log()
        mean, deviation = moments_of(continuous.double().numpy())
        cwt = wavelets((continuous.double().numpy() - mean) / deviation)
        return {
            "pitch": self._scaled("pitch", continuous),
            "voiced": voiced,
            "cwt": torch.from_numpy(cwt).float(),
            "moments": torch.tensor([mean, deviation]),
        }

    def _check(self, utterance: Utterance, phones: int, frames: int) -> None:
        if frames > self.max_frames or phones > self.max_phones:
            raise TooLong(
                f"{utterance.id}: {frames} frames and {phones} phones, the model has positions for {self.max_frames} and "
                f"{self.max_phones}: split the recording"
            )
        if phones > frames:
            raise DataError(f"utterance {utterance.id}: {phones} phones do not fit into {frames} frames: its text or recording is wrong")

    def _given(self, utterance: Utterance, frames: int, samples: int) -> Tensor:
        """(P,) by the alignment; a phone that is several rows of the table shares its time among them."""
        self._aligned(utterance)
        seconds, end = samples / self.sample_rate, utterance.phones[-1].end
        if abs(seconds - end) > 0.25:
            raise DataError(
                f"the phones of utterance {utterance.id} end at {end:.2f} s but {utterance.audio} lasts {seconds:.2f} s: "
                "align the data again"
            )
        parts: list[Phone] = []
        for symbol, start, end in utterance.phones:
            count = len(self.table.indices(symbol))
            edges = [start + (end - start) * i / count for i in range(count + 1)]
            parts += [Phone(symbol, a, b) for a, b in pairwise(edges)]
        return frame_durations(parts, frames, self.sample_rate / self.mel.hop)

    def _aligned(self, utterance: Utterance) -> None:
        if not utterance.phones:
            raise DataError(
                f"utterance {utterance.id} ({utterance.audio}) has no phone times: align the data with data/bring/align=learned, "
                "or let the model learn durations with backbone.frontend.learn_durations=true"
            )

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        return super().lengths(features) | {"utterances": 1}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """Features padded to (B, P) and (B, T); "phone" and "frame" as in `real`; phone_counts and frame_counts for the host."""
        names = ["phones", *FRAMEWISE, *(() if self.learn_durations else ("durations",))]
        batch: Batch = {name: pad_sequence([item[name] for item in items], batch_first=True) for name in names}
        batch |= {name: torch.stack([item[name] for item in items]) for name in ("speaker", "moments")}
        batch["emotion"] = torch.cat([item["emotion"] for item in items])
        counts = {kind: [len(item[name]) for item in items] for kind, name in (("phone", "phones"), ("frame", "mel"))}
        return batch | real(counts) | {f"{kind}_counts": lengths for kind, lengths in counts.items()}

    # Asking for speech -------------------------------------------------------------------------------------------------

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        """Phones of the text: those of the manifest, else espeak-ng's; without the pause that trimming cut off in front."""
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        leading = next(i for i, symbol in enumerate(phones) if symbol != PAUSE)
        return phones if self.trim_db is None else phones[leading:]

    def request(self, utterance: Utterance) -> Request:
        self.emotion(utterance.emotion)
        spoken, vector = self.spoken(utterance), self.voice(utterance.speaker)
        return Request(utterance.id, spoken, vector, utterance.emotion, utterance.language, voice=utterance.speaker)

    def emotion(self, name: str) -> int:
        return super().emotion(name) if self.with_emotions else 0

    def tokens(self, phones: Sequence[str]) -> dict[str, Tensor]:
        return {"phones": torch.tensor([i for phone in phones for i in self.table.indices(phone)], dtype=torch.long)}
