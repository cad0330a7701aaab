"""The frontend of models that are trained from scratch: phones of the manifest, a table of symbols and a codec learnt from the data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.qwen_tts_tokens import Codec, SpeechTokenFrontend
from ttsadapt.backbones.qwen_tts_vocabulary import Vocabulary
from ttsadapt.backbones.speakers import SpeakerStatistics, evenly
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance, phone_times
from ttsadapt.errors import CheckpointError, DataError
from ttsadapt.files import digest
from ttsadapt.text.phones import phonemize

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
        spoken = {u.id: self.spoken(u) for u in Bar(utterances, "phones", unit="utt", leave=False)}
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
            for utterance in Bar(utterances, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.heard_rate)
                paces.append(len(audio) / self.heard_rate * self.codec.rate / len(spoken[utterance.id]))
                yield audio

        self.codec.fit(recordings(), phone_times(utterances))
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))

    @property
    def known_speakers(self) -> list[str]:
        return sorted(self.voices)

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
        for (speaker, emotion), own in Bar(groups.items(), "timbres", unit="voice", leave=False):
            heard = [load(own[i].audio, self.heard_rate) for i in evenly(len(own), TIMBRE)]
            self.timbres.setdefault(speaker, {})[emotion] = torch.stack([self._told(audio)[0] for audio in heard]).mean(0)

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
        emotion = names[0] if self.with_emotions else None
        paced = leading + self.pacing.steps(names[leading:-2], emotion, self.codec.rate)  # the last: the end of text
        return torch.cat([torch.arange(leading), paced, torch.arange(leading - 1, leading - 1 + length - len(prompt) + 1)])

    def request(self, utterance: Utterance) -> Request:
        """`speaker`: what the model is told of the voice, then what the codec is."""
        told = self.voice(utterance.speaker, utterance.id), self.timbre(utterance.speaker, utterance.emotion, utterance.id)
        seed = int(digest(utterance.id, 8), 16)
        spoken, vector = self.spoken(utterance), torch.cat(told)
        return Request(utterance.id, spoken, vector, utterance.emotion, utterance.language, seed=seed, voice=utterance.speaker)

    def decode(self, tokens: Tensor, request: Request) -> Tensor:
        return self.codec.decode(tokens, *([request.speaker[self.speaker_size :]] if self.voiced else []))

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_tokens`."""
        request = Request(utterance.id, self.spoken(utterance), self.voice(utterance.speaker, utterance.id), utterance.emotion)
        return self.features(utterance, self.prompt(request), request.speaker)
