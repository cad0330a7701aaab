"""Phones and speech tokens in one sequence: features, batches, and the frontend of models that are trained from scratch."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ttsadapt.backbones.base import Batch, Frontend, Request
from ttsadapt.backbones.qwen_tts_pacing import Pacing
from ttsadapt.backbones.qwen_tts_vocabulary import Rows, Vocabulary
from ttsadapt.backbones.speakers import SpeakerStatistics, evenly
from ttsadapt.data.audio import load
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.pcm import resample
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError, TooLong
from ttsadapt.files import digest
from ttsadapt.text.phones import phonemize


class Codec(Protocol):
    """Waveform <-> speech tokens 0 .. tokens - 1.

    A codec whose tokens do not say whose voice it is (it has a `voice_size`) is also fitted on phones, where they are known,
    gives `voice(audio)`, and is told the voice: `decode(tokens, voice)`.
    """

    sample_rate: int
    """Hz of what `decode` gives, and of what `encode` takes unless there is an `input_rate`"""
    tokens: int
    rate: float
    """tokens a second"""
    levels: int
    """tokens that belong together; an utterance is a whole number of such groups"""

    def fit(self, recordings: Iterable[Tensor]) -> None: ...
    def encode(self, audio: Tensor) -> Tensor: ...
    def decode(self, tokens: Tensor) -> Tensor: ...
    def allowed(self, position: int) -> range: ...
    def embedding(self) -> Tensor: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class SpeechTokenFrontend(Frontend):
    """Utterance -> `tokens` (L,) = prompt, speech, end; `prompt` () its length; `speaker` (E,); `frames` ()."""

    speaker_size = 0
    """E: how long the vector of a voice is; 0: voices are heard in a reference recording, or not told apart"""

    def __init__(self, codec: Codec, max_tokens: int, hop: int, dropped: float) -> None:
        """`max_tokens`: prompt, speech and end. `hop`: samples of a frame, for counting only. `dropped`: see `collate`."""
        self.codec, self.max_tokens, self.hop, self.dropped = codec, max_tokens, hop, dropped
        self.pace = (0.0, 0.0, 0.0)
        """speech tokens a phone: least, mean and most of the pretraining data's utterances"""

    @property
    @abstractmethod
    def vocabulary(self) -> Rows: ...

    @property
    def heard_rate(self) -> int:
        """Hz of the recordings that the codec takes."""
        return getattr(self.codec, "input_rate", self.codec.sample_rate)

    @abstractmethod
    def prompt(self, request: Request) -> Tensor:
        """(P,) everything up to the first speech token that the model says by itself."""

    @abstractmethod
    def bounds(self, request: Request) -> tuple[int, int]:
        """The fewest and the most speech tokens that a request can take: an untrained model stops, too."""

    def positions(self, prompt: Tensor, length: int) -> Tensor:
        """(length,) rotary positions of the tokens of a sequence that begins with `prompt` (P,)."""
        return torch.arange(length)

    def decode(self, tokens: Tensor, request: Request) -> Tensor:
        """Speech tokens (S,) that were said to a request -> (samples,)."""
        return self.codec.decode(tokens)

    def recode(self, audio: Tensor) -> Tensor:
        """(samples,) at the codec's output rate -> the same through the codec."""
        heard = torch.from_numpy(resample(audio.cpu().float().numpy(), self.codec.sample_rate, self.heard_rate))
        return self.codec.decode(self.codec.encode(heard), *self._told(heard))

    @property
    def voiced(self) -> bool:
        """Whether the codec must be told the voice."""
        return hasattr(self.codec, "voice_size")

    def _told(self, audio: Tensor) -> tuple[Tensor, ...]:
        return (self.codec.voice(audio),) if self.voiced else ()

    def features(self, utterance: Utterance, prompt: Tensor, speaker: Tensor) -> dict[str, Tensor]:
        """TooLong when prompt, speech and end do not fit into `max_tokens`."""
        audio = load(utterance.audio, self.heard_rate)
        speech = self.codec.encode(audio) + self.vocabulary.speech[0]
        tokens = torch.cat([prompt, speech, torch.tensor([self.vocabulary.end])])
        if len(tokens) > self.max_tokens:
            raise TooLong(
                f"{utterance.id}: {len(tokens)} tokens do not fit into backbone.frontend.max_tokens={self.max_tokens}: "
                "split the recording, leave it out or raise the limit"
            )
        frames = torch.tensor(1 + len(audio) // self.hop)
        return {"tokens": tokens, "prompt": torch.tensor(len(prompt)), "speaker": speaker, "frames": frames}

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        return {"tokens": len(features["tokens"]) - int(features["prompt"]), "frames": int(features["frames"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`tokens` (B, L) padded on the right, `mask` (B, L) bool, `positions` (B, L), `prompt` (B,), `speaker` (B, E), `frames` (B,).

        `row` and `position` (N,): where the supervised tokens stand, speech and end. Found here, where no device has to be waited for.
        With `dropped` > 0 also `heard` (B, L) bool, false at that share of the speech tokens, drawn anew: a model in training does
        not see those among its inputs, so that it cannot go by the last tokens alone and listens to the phones.
        """
        rows = [item["tokens"] for item in items]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        lengths = torch.tensor([len(row) for row in rows])
        numbered = [self.positions(row[: int(item["prompt"])], len(row)) for item, row in zip(items, rows)]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("prompt", "speaker", "frames")}
        batch["positions"] = torch.nn.utils.rnn.pad_sequence(numbered, batch_first=True)
        place = torch.arange(tokens.shape[1])
        mask, spoken = place < lengths[:, None], place >= batch["prompt"][:, None]
        batch["row"], batch["position"] = (mask & spoken).nonzero(as_tuple=True)
        if self.dropped:
            batch["heard"] = (torch.rand(tokens.shape) >= self.dropped) | ~spoken
        return batch | {"tokens": tokens, "mask": mask}


NEUTRAL, TIMBRE = "neutral", 8
"""the emotion that stands in for one without recordings; recordings that a timbre is averaged over"""


class QwenTTSFrontend(SpeechTokenFrontend):
    """Phones as the manifest has them, a table of symbols and a codec that are learnt from the data."""

    def __init__(
        self,
        codec: Codec,
        speakers: SpeakerStatistics | None = None,
        emotions: bool = True,
        emotion_aliases: Mapping[str, str] | None = None,
        max_tokens: int = 2048,
        recordings: int = 1200,
        hop: int = 256,
        paced_positions: bool = False,
        dropped: float = 0.0,
    ) -> None:
        """`speakers`, `emotions`: condition on the voice (a soft prompt) and on the emotion (a token); NeuTTS has neither.

        `emotion_aliases`: emotion of the data -> emotion of the pretraining data. `max_tokens`: prompt, speech and end.
        `recordings`: how many the codec is fitted on. `hop`: samples of a frame, for counting only.
        `paced_positions`: phones are numbered as far apart as they are in speech on average (see `Pacing`), and speech is numbered
        from the first phone on, so a speech token and its phone have about the same rotary position and the alignment starts near
        the diagonal. NeuTTS numbers everything from left to right.
        `dropped`: share of the speech tokens that a model in training does not see among its inputs.
        """
        super().__init__(codec, max_tokens, hop, dropped)
        self.speakers, self.with_emotions = speakers, emotions
        self.emotion_aliases = dict(emotion_aliases or {})
        self.recordings, self.pacing = recordings, Pacing() if paced_positions else None
        self.voices: dict[str, Tensor] = {}
        self.timbres: dict[str, dict[str, Tensor]] = {}
        """what a codec that must be told is told, by speaker and emotion"""
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise DataError("the frontend has no symbols yet: fit it on the pretraining data or restore it from a base")
        return self._vocabulary

    @property
    def speaker_size(self) -> int:  # type: ignore[override]
        return self.speakers.size if self.speakers else 0

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.voices = self.speakers.fit(utterances) if self.speakers else {}
        spoken = {u.id: self.spoken(u) for u in tqdm(utterances, "phones", unit="utt", leave=False)}
        if self.pacing:
            self.pacing.fit(utterances, spoken)
        self._fit_codec([utterances[i] for i in evenly(len(utterances), self.recordings)], spoken)
        phones = sorted({s for phones in spoken.values() for s in phones})
        emotions = sorted({u.emotion for u in utterances}) if self.with_emotions else []
        if self.voiced:
            self._add_timbres(utterances)
        self._vocabulary = Vocabulary(phones, emotions, self.codec.tokens)

    def _fit_codec(self, utterances: Sequence[Utterance], spoken: Mapping[str, tuple[str, ...]]) -> None:
        """Codebooks, and the range of tokens a phone takes: it bounds how long a synthesised utterance can get."""
        paces: list[float] = []

        def recordings() -> Iterable[Tensor]:
            for utterance in tqdm(utterances, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.heard_rate)
                paces.append(len(audio) / self.heard_rate * self.codec.rate / len(spoken[utterance.id]))
                yield audio

        self.codec.fit(recordings(), *([[u.phones for u in utterances]] if self.voiced else []))
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Add the voices of these recordings. A voice that is known keeps its vector, so that the base does not shift."""
        new = [u for u in utterances if u.speaker not in self.voices]
        if self.speakers and new:
            self.voices |= self.speakers.vectors(new)
        if self.voiced:
            self._add_timbres(utterances)

    def _add_timbres(self, utterances: Sequence[Utterance]) -> None:
        """The codec's view of a voice in an emotion: the mean over a few recordings."""
        groups: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in sorted(utterances, key=lambda u: u.id):
            if utterance.emotion not in self.timbres.get(utterance.speaker, {}):
                groups.setdefault((utterance.speaker, utterance.emotion), []).append(utterance)
        for (speaker, emotion), own in tqdm(groups.items(), "timbres", unit="voice", leave=False):
            heard = [load(own[i].audio, self.heard_rate) for i in evenly(len(own), TIMBRE)]
            self.timbres.setdefault(speaker, {})[emotion] = torch.stack([self.codec.voice(audio) for audio in heard]).mean(0)

    def state(self) -> dict[str, Any]:
        return {
            "phones": self.vocabulary.phones,
            "emotions": self.vocabulary.emotions,
            "voices": self.voices,
            "timbres": self.timbres,
            "pace": list(self.pace),
            "pacing": self.pacing.state() if self.pacing else {},
            "codec": self.codec.state(),
            "speakers": self.speakers.state() if self.speakers else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the saved frontend was conditioned on something else than the config asks for."""
        kept = tuple(bool(state[name]) for name in ("emotions", "speakers", "pacing"))
        if kept != (self.with_emotions, bool(self.speakers), bool(self.pacing)):
            raise CheckpointError(
                "the saved frontend and backbone.frontend differ in whether they know emotions, speakers or paced_positions: "
                "use the base's own config"
            )
        self.codec.restore(state["codec"])
        if self.speakers:
            self.speakers.restore(state["speakers"])
        if self.pacing:
            self.pacing.restore(state["pacing"])
        self.voices, self.pace = dict(state["voices"]), tuple(state["pace"])
        self.timbres = {speaker: dict(own) for speaker, own in state["timbres"].items()}
        self._vocabulary = Vocabulary(state["phones"], state["emotions"], self.codec.tokens)

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        """Phones of the text: those of the manifest, else espeak-ng's. DataError when there are none."""
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        return phones

    def emotion(self, name: str, where: str) -> str | None:
        """The pretraining data's name of an emotion."""
        if not self.with_emotions:
            return None
        known, meant = self.vocabulary.emotions, self.emotion_aliases.get(name, name)
        if meant not in known:
            raise DataError(
                f"{where}: emotion {meant!r} is not in the pretraining data, which has {', '.join(known)}: "
                f"say which is meant with +backbone.frontend.emotion_aliases.{name}=<one of them>"
            )
        return meant

    def voice(self, speaker: str, where: str) -> Tensor:
        """(E,) what the model is told."""
        return self._known(self.voices, speaker, where) if self.speakers else torch.zeros(0)

    def timbre(self, speaker: str, emotion: str, where: str) -> Tensor:
        """(T,) what the codec is told: of this emotion, else neutral, else any."""
        if not self.voiced:
            return torch.zeros(0)
        own = self._known(self.timbres, speaker, where)
        return own[next(e for e in (emotion, NEUTRAL, min(own)) if e in own)]

    @staticmethod
    def _known(voices: Mapping[str, Any], speaker: str, where: str) -> Any:
        if speaker not in voices:
            known = ", ".join(sorted(voices))
            raise DataError(f"{where}: speaker {speaker!r} is unknown, there are {known}: enroll it from recordings")
        return voices[speaker]

    def prompt(self, request: Request) -> Tensor:
        return torch.tensor(self.vocabulary.prompt(request.phones, self.emotion(request.emotion, request.id)))

    def bounds(self, request: Request) -> tuple[int, int]:
        """Half as fast again and half as slow again as anything that pretraining heard."""
        (low, _, high), spoken = self.pace, len(request.phones)
        return int(low * spoken / 1.5), int(high * spoken * 1.5) + self.codec.levels

    def positions(self, prompt: Tensor, length: int) -> Tensor:
        if self.pacing is None:
            return super().positions(prompt, length)
        leading = int(self.with_emotions) + 1  # emotion, start of text
        names = self.vocabulary.names(prompt.tolist())
        starts = self.pacing.starts(names[leading:-2], names[0] if self.with_emotions else None)  # the last: the end of text
        paced = leading + (starts * self.codec.rate).round().long()
        return torch.cat([torch.arange(leading), paced, torch.arange(leading - 1, leading - 1 + length - len(prompt) + 1)])

    def request(self, utterance: Utterance) -> Request:
        """`speaker`: what the model is told of the voice, then what the codec is."""
        told = self.voice(utterance.speaker, utterance.id), self.timbre(utterance.speaker, utterance.emotion, utterance.id)
        seed = int(digest(utterance.id, 8), 16)
        return Request(utterance.id, self.spoken(utterance), torch.cat(told), utterance.emotion, utterance.language, seed=seed)

    def decode(self, tokens: Tensor, request: Request) -> Tensor:
        return self.codec.decode(tokens, *([request.speaker[self.speaker_size :]] if self.voiced else []))

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_tokens`."""
        request = Request(utterance.id, self.spoken(utterance), self.voice(utterance.speaker, utterance.id), utterance.emotion)
        return self.features(utterance, self.prompt(request), request.speaker)
