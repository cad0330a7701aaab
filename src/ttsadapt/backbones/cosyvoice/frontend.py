"""Utterances for CosyVoice: text, speech tokens, mel frames, a voice; rows of the language model and the flow's random draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Batch, Frontend, Reference, Request
from ttsadapt.backbones.cosyvoice.layout import NOTHING, SPEECH, TEXT, Layout, Row, paced, padded
from ttsadapt.backbones.cosyvoice.text import Text
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.speakers import evenly
from ttsadapt.bars import Bar
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Phone, Utterance, phone_times
from ttsadapt.errors import ConfigError, DataError, TooLong
from ttsadapt.files import digest

Draw = Callable[[Tensor], dict[str, Tensor]]
"""(B,) mel frames -> what the flow needs at random for a batch"""


class SpeechCodec(Protocol):
    """Waveform -> speech tokens 0 .. tokens - 1."""

    sample_rate: int
    tokens: int
    rate: float
    """tokens a second"""

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None:
        """`phones` of each recording, where their times are known."""

    def encode(self, audio: Tensor) -> Tensor: ...
    def embedding(self) -> Tensor:
        """(tokens, E) what stands behind a token; asked for only by models that begin with it."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class Voices(Protocol):
    """Recordings -> a vector for each speaker."""

    size: int

    def fit(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]: ...
    def vectors(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Prompt(Reference):
    """`phones` are symbols of the text, `codes` speech tokens (S,)."""

    mel: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """(frames, n_mels) log magnitudes"""


class CosyVoiceFrontend(Frontend):
    """Utterance -> `text` (T,), `instruct` (I,), `speech` (S,), `mel` (frames, n_mels), `speaker` (E,), `steps` (T,) of the text."""

    def __init__(
        self,
        text: Text,
        codec: SpeechCodec,
        speakers: Voices,
        mel: MelSpectrogram,
        layout: Callable[[int], Layout],
        draw: Draw,
        interleave: float = 0.5,
        ratio: Sequence[int] = (5, 15),
        frames_a_token: int | None = 2,
        pace: Sequence[float] | None = None,
        references: bool = False,
        reference_seconds: float = 4.0,
        longest: float = 30.0,
        recordings: int = 1600,
        paced_positions: bool = False,
        dropped: float = 0.0,
    ) -> None:
        """`layout`: of the rows of the language model, made with the number of speech tokens. `draw`: the flow's.

        `interleave`: share of the utterances whose text and speech alternate, `ratio` symbols and tokens at a time (where there
        is speech enough). `frames_a_token`: of mel; None: the flow stretches tokens to the mel. `pace`: least and most tokens a
        symbol; None: what the pretraining data have, and half as much again. `references`: keep a recording of about
        `reference_seconds` of each voice and emotion, for models that go on from one. `longest`: seconds of an utterance.
        `recordings`: how many the codec is fitted on. `paced_positions`: symbols of the text are numbered as far apart as they are in
        speech (see `Pacing`), which version 1, whose positions are not numbered, cannot have. `dropped`: share of the speech tokens that
        a language model in training does not hear, so that it listens to the text.
        """
        self.text, self.codec, self.speakers, self.mel, self.draw = text, codec, speakers, mel, draw
        self.layout = layout(codec.tokens)
        self.interleave, self.ratio, self.frames_a_token = interleave, tuple(ratio), frames_a_token
        self.given_pace = tuple(pace) if pace else None
        self.references, self.reference_seconds = references, reference_seconds
        self.longest, self.recordings, self.dropped = longest, recordings, dropped
        if paced_positions and self.layout.encoded:
            raise ConfigError("backbone.frontend.paced_positions: the language model of CosyVoice 1 numbers no positions, leave it out")
        self.pacing = Pacing() if paced_positions else None
        self.voices: dict[str, Tensor] = {}
        self.prompts: dict[tuple[str, str], Prompt] = {}
        """by speaker and emotion"""
        self.pace = self.given_pace or (0.0, 0.0)

    # Learning ----------------------------------------------------------------------------------------------------------

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.voices = self.speakers.fit(utterances)
        spoken = {u.id: self.text.symbols(u) for u in Bar(utterances, "text", unit="utt", leave=False)}
        self.text.fit(spoken.values(), {u.emotion for u in utterances})
        if self.pacing:
            self.pacing.fit(utterances, spoken)
        paces = [u.duration * self.codec.rate / len(spoken[u.id]) for u in utterances]
        self.pace = self.given_pace or (min(paces) / 1.5, max(paces) * 1.5)
        every = [*utterances, *self.heard]
        chosen = [every[i] for i in evenly(len(every), self.recordings)]
        recordings = (load(u.audio, self.codec.sample_rate) for u in Bar(chosen, "recordings", unit="utt", leave=False))
        self.codec.fit(recordings, phone_times(chosen))

    @property
    def known_speakers(self) -> list[str]:
        return sorted(self.voices)

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Add voices and references of these recordings. What is known stays, so that the base does not shift."""
        new = [u for u in utterances if u.speaker not in self.voices]
        if new:
            self.voices |= self.speakers.vectors(new)
        if self.references:
            self.prompts |= {k: self._prompt(u) for k, u in self._best(utterances).items() if k not in self.prompts}

    def _best(self, utterances: Sequence[Utterance]) -> dict[tuple[str, str], Utterance]:
        """By speaker and emotion the recording whose length is nearest to the wanted one, the first by id among equals."""
        best: dict[tuple[str, str], Utterance] = {}
        for utterance in sorted(utterances, key=lambda u: (abs(u.duration - self.reference_seconds), u.id)):
            best.setdefault((utterance.speaker, utterance.emotion), utterance)
        return best

    def _prompt(self, utterance: Utterance) -> Prompt:
        speech, mel = self.measured(utterance)
        if len(speech) < self.codec.rate / 2:
            raise DataError(
                f"{utterance.id}: a reference of {len(speech) / self.codec.rate:.2f} s is too short to go on from: "
                f"give {utterance.speaker} a recording of at least half a second"
            )
        return Prompt(self.text.symbols(utterance), speech, utterance.language, mel)

    def state(self) -> dict[str, Any]:
        prompts = [
            {"speaker": s, "emotion": e, "phones": list(p.phones), "codes": p.codes, "language": p.language, "mel": p.mel}
            for (s, e), p in self.prompts.items()
        ]
        return {
            "text": self.text.state(),
            "codec": self.codec.state(),
            "speakers": self.speakers.state(),
            "voices": self.voices,
            "pace": list(self.pace),
            "pacing": self.pacing.state() if self.pacing else {},
            "references": prompts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.text.restore(state["text"])
        self.codec.restore(state["codec"])
        self.speakers.restore(state["speakers"])
        if self.pacing:
            self.pacing.restore(state["pacing"])
        self.voices, self.pace = dict(state["voices"]), tuple(state["pace"])
        self.prompts = {
            (p["speaker"], p["emotion"]): Prompt(tuple(p["phones"]), p["codes"], p["language"], p["mel"]) for p in state["references"]
        }

    # Utterances --------------------------------------------------------------------------------------------------------

    def voice(self, speaker: str, where: str) -> Tensor:
        if speaker not in self.voices:
            known = ", ".join(sorted(self.voices))
            raise DataError(f"{where}: speaker {speaker!r} is unknown, there are {known}: enroll it from recordings")
        return self.voices[speaker]

    def reference(self, speaker: str, emotion: str) -> Prompt | None:
        """Of the voice in the emotion; else in the neutral one; else in any; None where none was enrolled."""
        mine = [e for s, e in sorted(self.prompts) if s == speaker]
        found = next((e for e in (emotion, "neutral", *mine) if e in mine), None)
        return None if found is None else self.prompts[speaker, found]

    def request(self, utterance: Utterance) -> Request:
        """`phones` are the text's symbols, whatever they are."""
        return Request(
            utterance.id,
            self.text.symbols(utterance),
            self.voice(utterance.speaker, utterance.id),
            utterance.emotion,
            utterance.language,
            seed=int(digest(utterance.id, 8), 16),
            reference=self.reference(utterance.speaker, utterance.emotion),
            voice=utterance.speaker,
        )

    def measured(self, utterance: Utterance) -> tuple[Tensor, Tensor]:
        """(S,) speech tokens and (frames, n_mels) mel, of one length: both are cut to what the shorter one holds."""
        speech = self.codec.encode(load(utterance.audio, self.codec.sample_rate))
        mel = self.mel(load(utterance.audio, self.mel.sample_rate))
        if self.frames_a_token:
            steps = min(len(speech), len(mel) // self.frames_a_token)
            speech, mel = speech[:steps], mel[: steps * self.frames_a_token]
        return speech, mel

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong beyond `longest` seconds."""
        speech, mel = self.measured(utterance)
        if len(speech) > self.longest * self.codec.rate:
            raise TooLong(
                f"{utterance.id}: {len(speech) / self.codec.rate:.1f} s are more than backbone.frontend.longest={self.longest}: "
                "split the recording, leave it out or raise the limit"
            )
        if not len(speech):
            raise DataError(f"{utterance.id}: the recording is shorter than one speech token: remove it")
        symbols = self.text.symbols(utterance)
        return {
            "text": self.text.ids(symbols),
            "steps": self.steps(symbols, utterance.emotion),
            "instruct": self.text.instruct(utterance.emotion, utterance.id),
            "speech": speech,
            "mel": mel,
            "speaker": self.voice(utterance.speaker, utterance.id),
        }

    def steps(self, symbols: Sequence[str], emotion: str | None, reference: Prompt | None = None) -> Tensor:
        """(R + T,) where, counted in speech tokens, symbols of the reference and of the text are expected."""
        before, taken = (reference.phones, len(reference.codes)) if reference else ((), 0)
        if self.pacing is None:
            return torch.zeros(len(before) + len(symbols), dtype=torch.long)
        return self.pacing.steps(symbols, emotion, self.codec.rate, before, taken)[:-1]

    def numbered(self, kinds: Tensor, ids: Tensor, instruct: int, steps: Tensor) -> Tensor:
        """(L,) rotary positions of a row."""
        if self.pacing is None:
            return torch.arange(len(kinds))
        return paced(kinds, torch.cat([steps.new_zeros(instruct), steps]), (kinds == SPEECH) & (ids < self.codec.tokens))

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        """`tokens`: speech and end. Where text and speech alternate, their positions and the chunks' share this count: see `worth`."""
        return {"tokens": len(features["speech"]) + 1, "frames": len(features["mel"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`kinds`, `symbols`, `targets`, `mask` and, where configured, `positions` and `heard` (B, L) of the language model, `worth` (B,)
        of its positions and `text` (B, T) of its encoder; `speech` (B, S), `speech_lengths` (B,), `mel` (B, F, n_mels),
        `mel_lengths` (B,) and `flow_...` for the flow; `speaker` (B, E).

        Which utterances alternate, which tokens are not heard, and what the flow needs at random, is drawn from torch's global generator.
        """
        alternate = torch.rand(len(items)) < self.interleave
        texts = [self._read(item["text"], item["instruct"]) for item in items]
        rows = [self._row(text, item["speech"], instruct, bool(draw)) for (text, instruct), item, draw in zip(texts, items, alternate)]
        batch = padded(rows)
        if self.pacing:
            numbered = [self.numbered(r.kinds, r.ids, len(item["instruct"]), item["steps"]) for r, item in zip(rows, items)]
            batch["positions"] = pad_sequence(numbered, batch_first=True)
        if self.dropped:
            spoken = (batch["kinds"] == SPEECH) & (batch["symbols"] < self.codec.tokens)
            batch["heard"] = (torch.rand(spoken.shape) >= self.dropped) | ~spoken
        mel_lengths = torch.tensor([len(item["mel"]) for item in items])
        drawn = {f"flow_{name}": value for name, value in self.draw(mel_lengths).items()}
        predicted = torch.tensor([int((row.targets != NOTHING).sum()) for row in rows])
        speech_lengths = torch.tensor([len(item["speech"]) for item in items])
        return batch | drawn | {
            "worth": (speech_lengths + 1) / predicted,
            "text": pad_sequence([text for text, _ in texts], batch_first=True),
            "speech": pad_sequence([item["speech"] for item in items], batch_first=True),
            "speech_lengths": speech_lengths,
            "mel": pad_sequence([item["mel"] for item in items], batch_first=True),
            "mel_lengths": mel_lengths,
            "speaker": torch.stack([item["speaker"] for item in items]),
        }  # fmt: skip

    def _read(self, text: Tensor, instruct: Tensor) -> tuple[Tensor, Tensor]:
        """(text, instruct) as the layout has them: most know no instruction beside the text."""
        if self.layout.separate_instruct:
            return text, instruct
        return torch.cat([instruct, text]), instruct[:0]

    def _row(self, text: Tensor, speech: Tensor, instruct: Tensor, alternate: bool) -> Row:
        if alternate and self.layout.fits(len(text), len(speech), self.ratio):
            return self.layout.interleaved(text, speech, instruct, self.ratio)
        return self.layout.whole(text, speech, instruct)

    def prefix(self, request: Request, reference: Prompt | None) -> dict[str, Tensor]:
        """`kinds`, `ids`, `positions` (P,) and `text` (T,): what speech tokens follow; the reference's text and speech come first."""
        instruct = self.text.instruct(request.emotion, request.id)
        said = self.text.ids(reference.phones) if reference else instruct[:0]
        text, instruct = self._read(torch.cat([said, self.text.ids(request.phones)]), instruct)
        parts = self.layout.prefix(text, reference.codes if reference else instruct[:0], instruct)
        kinds, ids = torch.cat([torch.full((len(ids),), kind) for kind, ids in parts]), torch.cat([ids for _, ids in parts])
        steps = self.steps(request.phones, request.emotion, reference)
        positions = self.numbered(kinds, ids, int((kinds == TEXT).sum()) - len(steps), steps)
        return {"kinds": kinds, "ids": ids, "text": text, "positions": positions}
