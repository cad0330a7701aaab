"""Phones and speech tokens in one sequence, in NeuTTS's layout (neuphonic/neutts-air, TRAINING.md)."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ttsadapt.backbones.base import Batch, Frontend, Request
from ttsadapt.backbones.speakers import SpeakerStatistics, evenly
from ttsadapt.data.audio import load
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError, TooLong
from ttsadapt.files import digest
from ttsadapt.text.phones import phonemize, split_stress

PAD, UNKNOWN = "<|pad|>", "<|unknown|>"
TEXT_START, TEXT_END = "<|TEXT_PROMPT_START|>", "<|TEXT_PROMPT_END|>"
SPEECH_START, SPEECH_END = "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>"


class Codec(Protocol):
    """Waveform <-> speech tokens 0 .. tokens - 1."""

    sample_rate: int
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


def speech_rows(row: Callable[[str], int | None], tokens: int) -> range:
    """Embedding rows of <|speech_0|> ..., looked up one by one: CheckpointError unless they follow each other."""
    found = [row(f"<|speech_{i}|>") for i in range(tokens)]
    first = found[0]
    if first is None or found != list(range(first, first + tokens)):
        raise CheckpointError(
            f"the vocabulary does not hold <|speech_0|> .. <|speech_{tokens - 1}|> in consecutive rows: it was made for another codec"
        )
    return range(first, first + tokens)


class Vocabulary:
    """Symbols in rows: phones and emotions, then controls, then speech, as a tokenizer that was extended for speech has them."""

    def __init__(self, phones: Sequence[str], emotions: Sequence[str], speech: int) -> None:
        self.phones, self.emotions = list(phones), list(emotions)
        controls = [PAD, UNKNOWN, TEXT_START, TEXT_END, SPEECH_START, SPEECH_END]
        symbols = [*self.phones, *map(_emotion, self.emotions), *controls, *(f"<|speech_{i}|>" for i in range(speech))]
        self._rows = {symbol: i for i, symbol in enumerate(symbols)}
        self.speech = speech_rows(self._rows.get, speech)
        self.pad, self.end = self._rows[PAD], self._rows[SPEECH_END]

    def __len__(self) -> int:
        return len(self._rows)

    def prompt(self, symbols: Sequence[str], emotion: str | None) -> list[int]:
        """Everything up to the first speech token."""
        opening = [] if emotion is None else [self._rows[_emotion(emotion)]]
        controls = [self._rows[c] for c in (TEXT_START, TEXT_END, SPEECH_START)]
        return [*opening, controls[0], *map(self._phone, symbols), *controls[1:]]

    def _phone(self, symbol: str) -> int:
        """A phone that pretraining did not have falls back on itself without stress, then without length and diacritics."""
        if symbol in self._rows:
            return self._rows[symbol]
        bare, _ = split_stress(symbol)
        plain = "".join(c for c in unicodedata.normalize("NFD", bare) if unicodedata.category(c) in ("Ll", "Lo"))
        return next((self._rows[s] for s in (bare, plain, plain[:1]) if s in self._rows), self._rows[UNKNOWN])


def _emotion(name: str) -> str:
    return f"<|emotion_{name}|>"


class QwenTTSFrontend(Frontend):
    """Utterance -> `tokens` (L,) = prompt, speech, end; `prompt` () its length; `speaker` (E,); `frames` ()."""

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
    ) -> None:
        """`speakers`, `emotions`: condition on the voice (a soft prompt) and on the emotion (a token); NeuTTS has neither.

        `emotion_aliases`: emotion of the data -> emotion of the pretraining data. `max_tokens`: prompt, speech and end.
        `recordings`: how many the codec is fitted on. `hop`: samples of a frame, for counting only.
        `paced_positions`: phones are numbered as far apart as they are in speech on average, and speech is numbered from the
        first phone on, so a speech token and its phone have about the same rotary position and the alignment starts near the
        diagonal. NeuTTS numbers everything from left to right.
        """
        self.codec, self.speakers, self.with_emotions = codec, speakers, emotions
        self.emotion_aliases = dict(emotion_aliases or {})
        self.max_tokens, self.recordings, self.hop = max_tokens, recordings, hop
        self.paced_positions = paced_positions
        self.voices: dict[str, Tensor] = {}
        self.pace = (0.0, 0.0, 0.0)
        """speech tokens a phone: least, mean and most of the pretraining data's utterances"""
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise DataError("the frontend has no symbols yet: fit it on the pretraining data or restore it from a base")
        return self._vocabulary

    @property
    def speaker_size(self) -> int:
        return self.speakers.size if self.speakers else 0

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.voices = self.speakers.fit(utterances) if self.speakers else {}
        spoken = {u.id: self.spoken(u) for u in tqdm(utterances, "phones", unit="utt", leave=False)}
        self._fit_codec([utterances[i] for i in evenly(len(utterances), self.recordings)], spoken)
        phones = sorted({s for phones in spoken.values() for s in phones})
        emotions = sorted({u.emotion for u in utterances}) if self.with_emotions else []
        self._vocabulary = Vocabulary(phones, emotions, self.codec.tokens)

    def _fit_codec(self, utterances: Sequence[Utterance], spoken: Mapping[str, tuple[str, ...]]) -> None:
        """Codebooks, and the range of tokens a phone takes: it bounds how long a synthesised utterance can get."""
        paces: list[float] = []

        def recordings() -> Iterable[Tensor]:
            for utterance in tqdm(utterances, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.codec.sample_rate)
                paces.append(len(audio) / self.codec.sample_rate * self.codec.rate / len(spoken[utterance.id]))
                yield audio

        self.codec.fit(recordings())
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Add the voices of these recordings. A voice that is known keeps its vector, so that the base does not shift."""
        new = [u for u in utterances if u.speaker not in self.voices]
        if self.speakers and new:
            self.voices |= self.speakers.vectors(new)

    def state(self) -> dict[str, Any]:
        return {
            "phones": self.vocabulary.phones,
            "emotions": self.vocabulary.emotions,
            "voices": self.voices,
            "pace": list(self.pace),
            "codec": self.codec.state(),
            "speakers": self.speakers.state() if self.speakers else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the saved frontend was conditioned on something else than the config asks for."""
        if bool(state["emotions"]) != self.with_emotions or bool(state["speakers"]) != bool(self.speakers):
            raise CheckpointError(
                "the saved frontend and backbone.frontend differ in whether they know speakers or emotions: use the base's own config"
            )
        self.codec.restore(state["codec"])
        if self.speakers:
            self.speakers.restore(state["speakers"])
        self.voices, self.pace = dict(state["voices"]), tuple(state["pace"])
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
        if not self.speakers:
            return torch.zeros(0)
        if speaker not in self.voices:
            known = ", ".join(sorted(self.voices))
            raise DataError(f"{where}: speaker {speaker!r} is unknown, there are {known}: enroll it from recordings")
        return self.voices[speaker]

    def prompt(self, request: Request) -> Tensor:
        """(P,) everything up to the first speech token."""
        return torch.tensor(self.vocabulary.prompt(request.phones, self.emotion(request.emotion, request.id)))

    def positions(self, prompt: int, length: int) -> Tensor:
        """(length,) rotary positions of the tokens of a sequence whose prompt takes the first `prompt`."""
        if not self.paced_positions:
            return torch.arange(length)
        leading = int(self.with_emotions) + 1  # emotion, start of text
        phones = torch.arange(prompt - leading - 1)  # the end of text stands after the last phone
        paced = leading + (phones * self.pace[1]).round().long()
        return torch.cat([torch.arange(leading), paced, torch.arange(leading - 1, leading - 1 + length - prompt + 1)])

    def request(self, utterance: Utterance) -> Request:
        return Request(
            utterance.id,
            self.spoken(utterance),
            self.voice(utterance.speaker, utterance.id),
            utterance.emotion,
            utterance.language,
            seed=int(digest(utterance.id, 8), 16),
        )

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_tokens`."""
        request = self.request(utterance)
        prompt = self.prompt(request)
        audio = load(utterance.audio, self.codec.sample_rate)
        speech = self.codec.encode(audio) + self.vocabulary.speech[0]
        tokens = torch.cat([prompt, speech, torch.tensor([self.vocabulary.end])])
        if len(tokens) > self.max_tokens:
            raise TooLong(
                f"{utterance.id}: {len(tokens)} tokens do not fit into backbone.frontend.max_tokens={self.max_tokens}: "
                "split the recording, leave it out or raise the limit"
            )
        frames = torch.tensor(1 + len(audio) // self.hop)
        return {"tokens": tokens, "prompt": torch.tensor(len(prompt)), "speaker": request.speaker, "frames": frames}

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        return {"tokens": len(features["tokens"]) - int(features["prompt"]), "frames": int(features["frames"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`tokens` (B, L) padded on the right, `mask` (B, L) bool, `positions` (B, L), `prompt` (B,), `speaker` (B, E), `frames` (B,)."""
        rows = [item["tokens"] for item in items]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        lengths = torch.tensor([len(row) for row in rows])
        numbered = [self.positions(int(item["prompt"]), len(row)) for item, row in zip(items, rows)]
        stacked = {name: torch.stack([item[name] for item in items]) for name in ("prompt", "speaker", "frames")}
        positions = torch.nn.utils.rnn.pad_sequence(numbered, batch_first=True)
        return {"tokens": tokens, "positions": positions, "mask": torch.arange(tokens.shape[1]) < lengths[:, None], **stacked}
