"""Conversations of text and frames of codes in CSM's layout: for every turn its text, its frames and a frame of zeros that ends it.

SesameAILabs/csm, `generator.py`: begin, [role]text, end, then the audio. What a turn says comes right before how it sounds; the
voice and its manner are those of earlier turns, the context, which are heard but not learnt.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.base import Batch, Frontend, Reference, Request
from ttsadapt.backbones.frames import IGNORED, FrameCodec, Voices, amortised, drawn_labels, right_padded, shifted_in, supervised_at
from ttsadapt.backbones.frames_text import ROLES, Text
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.speakers import evenly
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Utterance, phone_times
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong
from ttsadapt.files import digest

SHORTEST = 0.3
"""seconds of a recording that a voice can be taken from"""


@dataclass(frozen=True)
class Turn(Reference):
    """A turn of a conversation: what was said, how it sounded, and who said it. `codes` are the codec's, (frames, levels)."""

    role: str = "0"


@dataclass(frozen=True)
class Dialogue(Request):
    """A request that answers earlier turns; without any it is the same as a `Request`."""

    earlier: tuple[Turn, ...] = ()
    role: str = "0"


class CsmFrontend(Frontend):
    """Utterance -> `text` (T,), `codes` (T, K), `positions` (T,), `learnt` (T,), `frames` ().

    `learnt` counts, from 1, the turns whose frames are learnt, at those frames; it is 0 elsewhere.
    """

    def __init__(
        self,
        codec: FrameCodec,
        text: Text,
        max_tokens: int = 2048,
        depth_share: float = 0.0625,
        context: bool = True,
        context_turns: int = 4,
        reference_seconds: float = 3.0,
        reserve_end: bool = False,
        paced_positions: bool = False,
        dropped: float = 0.0,
        recordings: int = 1200,
        hop: int = 256,
    ) -> None:
        """`max_tokens`: text and frames of all turns. `depth_share`: of the frames whose acoustic codes are learnt, drawn anew
        for every batch. `context`: a recording of the voice is heard first, of about `reference_seconds`. `context_turns`: of a
        dialogue this many turns before the utterance are heard after that, fewer where they do not fit; 0: none.

        `reserve_end`: codes are counted from 1, so that 0 means the end and nothing else; Mimi's are counted from 0 in CSM.
        `paced_positions`: symbols and frames of a turn are numbered side by side, see `Pacing`; CSM's run from left to right. Every
        symbol of the text must be an id of its own. `dropped`: share of the learnt frames that a model in training does not hear.
        `recordings`: how many the codec is fitted on. `hop`: samples of a frame, for counting only.
        """
        self.codec, self.text, self.max_tokens, self.depth_share = codec, text, max_tokens, depth_share
        self.context, self.context_turns, self.recordings, self.hop = context, context_turns, recordings, hop
        if context_turns < 0:
            raise ConfigError(f"backbone.frontend.context_turns={context_turns}: give 0 or more")
        self.pacing = Pacing() if paced_positions else None
        self.dropped = dropped
        self.shift = int(reserve_end)
        self.voices = Voices(seconds=reference_seconds)
        self.pace = (0.0, 0.0, 0.0)
        """frames a symbol: least, mean and most of the utterances that `fit` saw"""

    def fit(self, utterances: Sequence[Utterance]) -> None:
        self.text.fit(utterances)
        if self.pacing:
            self.pacing.fit(utterances, {u.id: self.text.spoken(u) for u in utterances})
        paces: list[float] = []

        chosen = [utterances[i] for i in evenly(len(utterances), self.recordings)]

        def recordings() -> Iterable[Tensor]:
            for utterance in Bar(chosen, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.codec.sample_rate)
                seconds = len(audio) / self.codec.sample_rate
                paces.append(seconds * self.codec.rate / self.codec.levels / len(self.text.spoken(utterance)))
                yield audio

        self.codec.fit(recordings(), phone_times(chosen))
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))
        self.enroll(utterances)

    @property
    def known_speakers(self) -> list[str]:
        return self.voices.speakers

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        if self.context:
            self.voices.enroll(utterances, self._reference)

    def state(self) -> dict[str, Any]:
        return {
            "text": self.text.state(),
            "codec": self.codec.state(),
            "pace": list(self.pace),
            "pacing": self.pacing.state() if self.pacing else {},
            "voices": self.voices.state(),
            "shift": self.shift,
            "heard": [self.context, self.context_turns, self.max_tokens],  # features made with other ones are other features
        }

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when the codes were counted in another way than the config says."""
        if state["shift"] != self.shift:
            raise CheckpointError("backbone.frontend.reserve_end is not as it was when the base was trained: use the base's own config")
        self.text.restore(state["text"])
        self.codec.restore(state["codec"])
        self.voices.restore(state["voices"])
        self.pace = tuple(state["pace"])
        if self.pacing:
            self.pacing.restore(state["pacing"])

    def turn(self, utterance: Utterance, role: str = "0") -> Turn:
        """A recording as a turn of a conversation. DataError when it is too short to take a voice from."""
        made = self._reference(utterance)
        if len(made.codes) * self.codec.levels / self.codec.rate < SHORTEST:
            raise DataError(f"{utterance.id}: a reference of less than {SHORTEST} s says too little about a voice: give a longer recording")
        return Turn(made.phones, made.codes, made.language, role)

    def _reference(self, utterance: Utterance) -> Reference:
        return Reference(self.text.spoken(utterance), self._codes(utterance), utterance.language)

    def _codes(self, utterance: Utterance) -> Tensor:
        """(frames, levels) of the codec. DataError when one of them would end the speech before its time."""
        codes = self.codec.codes(load(utterance.audio, self.codec.sample_rate))
        ends = ((codes + self.shift) == 0).all(1)
        if ends.any():
            raise DataError(
                f"{utterance.id}: frame {int(ends.nonzero()[0])} of {len(codes)} has only codes 0, which mean the end of speech: "
                "the codec is untrained, or its codebooks are empty"
            )
        return codes

    def request(self, utterance: Utterance) -> Request:
        voice = self.voices.find(utterance.speaker, utterance.emotion, utterance.id, but=utterance.id) if self.context else None
        return Dialogue(
            utterance.id,
            self.text.spoken(utterance),
            torch.zeros(0),
            utterance.emotion,
            utterance.language,
            seed=int(digest(utterance.id, 8), 16),
            reference=voice,
            voice=utterance.speaker,
            earlier=self.earlier(utterance),
        )

    def earlier(self, utterance: Utterance) -> tuple[Turn, ...]:
        """The last turns of the dialogue before this one, as they were recorded; who speaks now has the first role."""
        roles = dict.fromkeys([utterance.speaker, *(turn.speaker for turn in reversed(utterance.context))])
        role = dict(zip(roles, ROLES))
        heard = utterance.context[-self.context_turns :] if self.context_turns else ()
        made = [(self._reference(turn), role.get(turn.speaker, ROLES[-1])) for turn in heard]
        return tuple(Turn(m.phones, m.codes, m.language, who) for m, who in made)

    def prompt(self, request: Request) -> dict[str, Tensor]:
        """`text`, `codes`, `positions` up to the first frame of what is asked for. DataError when nothing more would fit.

        Of earlier turns the oldest go first where they would leave less room than the slowest speech takes.
        """
        role = request.role if isinstance(request, Dialogue) else ROLES[0]
        asked = Turn(tuple(request.phones), torch.zeros(0, self.codec.levels, dtype=torch.long), request.language, role)
        room = self.slowest(len(request.phones))
        turns = self.fitting([*context(request), asked], fixed(request), lambda t: self._size(t) + room)
        made = self._laid_out(turns, request.emotion, closed=False)
        if len(made["text"]) + 2 > self.max_tokens:
            raise DataError(
                f"{request.id}: the text and what comes before it take {len(made['text'])} of "
                f"backbone.frontend.max_tokens={self.max_tokens}: split the text or give less context"
            )
        return made

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_tokens`; of its dialogue the oldest turns are left out until it does."""
        request = self.request(utterance)
        last = Turn(request.phones, self._codes(utterance), request.language)
        turns = self.fitting([*context(request), last], fixed(request), self._size)
        return self.conversation(turns, utterance.id, emotion=utterance.emotion)

    def slowest(self, symbols: int) -> int:
        """Frames that an utterance may get: half as slow again as anything that `fit` saw."""
        return int(1.5 * self.pace[2] * symbols) + 2

    def fitting(self, turns: Sequence[Turn], first: int, size: Callable[[Sequence[Turn]], int]) -> list[Turn]:
        """The turns without the oldest ones after the `first`, until `size` of them is at most `max_tokens`; none is ever cut."""
        kept = list(turns)
        while len(kept) > first + 1 and size(kept) > self.max_tokens:
            del kept[first]
        return kept

    def _size(self, turns: Sequence[Turn]) -> int:
        """Positions that they take, the frame that ends each of them counted."""
        return sum(len(self.text.ids(t.phones, t.role)) + len(t.codes) + 1 for t in turns)

    def conversation(
        self, turns: Sequence[Turn], where: str, learnt: Sequence[bool] | None = None, emotion: str | None = None
    ) -> dict[str, Tensor]:
        """Features of a whole conversation. `learnt` says which turns are learnt; None: the last one. `emotion`: of the last one."""
        chosen = [k == len(turns) - 1 for k in range(len(turns))] if learnt is None else list(learnt)
        made = self._laid_out(turns, emotion)
        if len(made["text"]) > self.max_tokens:
            raise TooLong(
                f"{where}: {len(made['text'])} text tokens and frames do not fit into backbone.frontend.max_tokens={self.max_tokens}: "
                "split the recording, leave it out or raise the limit"
            )
        turn, audio = made.pop("turn"), self._learnable(made)
        number = torch.tensor(chosen).cumsum(0) * torch.tensor(chosen)  # of every turn, 0 when it is not learnt
        spoken = sum(len(t.codes) for t, c in zip(turns, chosen) if c) * self.codec.levels / self.codec.rate
        frames = torch.tensor(1 + int(spoken * self.codec.sample_rate) // self.hop)
        return made | {"learnt": number[turn] * audio, "frames": frames}

    def _learnable(self, made: dict[str, Tensor]) -> Tensor:
        """(T,) bool: where, in a turn that is learnt, there is something to learn."""
        return made["text"] < 0

    def _laid_out(self, turns: Sequence[Turn], emotion: str | None = None, closed: bool = True) -> dict[str, Tensor]:
        """`text`, `codes`, `positions` and `turn` (T,), which turn a position belongs to. Not `closed`: the last has no audio yet."""
        text, codes, positions, owner, start = [], [], [], [], 0
        for k, turn in enumerate(turns):
            ids = torch.tensor(self.text.ids(turn.phones, turn.role))
            audio = shifted_in(turn.codes, self.shift) if closed or k < len(turns) - 1 else turn.codes
            text += [ids, torch.full((len(audio),), -1)]
            codes += [torch.zeros(len(ids), self.codec.levels, dtype=torch.long), audio]
            positions.append(start + self.numbered(turn, len(ids), len(audio), emotion, last=k == len(turns) - 1))
            owner.append(torch.full((len(ids) + len(audio),), k))
            start = int(positions[-1].max()) + 1
        joined = {"text": text, "codes": codes, "positions": positions, "turn": owner}
        return {name: torch.cat(parts) for name, parts in joined.items()}

    def numbered(self, turn: Turn, ids: int, frames: int, emotion: str | None, last: bool) -> Tensor:
        """(ids + frames,) rotary positions of one turn, from 0. How long the `last` one will take is not known from its frames."""
        if self.pacing is None:
            return torch.arange(ids + frames)
        leading, rate = self.text.leading, self.codec.rate / self.codec.levels
        if last:
            steps = self.pacing.steps(turn.phones, emotion, rate)
        else:
            steps = self.pacing.steps((), emotion, rate, turn.phones, len(turn.codes))
        if len(steps) != ids - leading:
            raise ConfigError("backbone.frontend.paced_positions needs a text whose symbols are ids of their own: phones")
        return torch.cat([torch.arange(leading), leading + steps[:-1], torch.arange(leading - 1, leading + frames)])

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        turns = features["learnt"].bincount()[1:].tolist()
        acoustic = sum(amortised(n, self.depth_share) for n in turns) * (self.codec.levels - 1)
        return {"semantic": sum(turns), "acoustic": acoustic, "frames": int(features["frames"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`text` (B, T), `codes` and `labels` (B, T, K), `positions` (B, T), `mask` (B, T) bool, padded on the right, `speaker` (B, 0).

        With `dropped` also `heard` (B, T, 1) bool. `semantic` (N,) and `acoustic` (M,) are flat indices into B * T of the
        frames whose codes are learnt.
        """
        labels = right_padded([drawn_labels(i["codes"], i["learnt"], self.depth_share) for i in items], IGNORED)
        padded = {name: right_padded([i[name] for i in items]) for name in ("text", "codes", "positions")}
        mask = right_padded([torch.ones_like(i["text"], dtype=torch.bool) for i in items], False)
        semantic, acoustic = supervised_at(labels)
        alone = {"frames": torch.stack([i["frames"] for i in items]), "speaker": torch.zeros(len(items), 0)}
        if self.dropped:  # drawn anew for every batch; the context is always heard
            alone["heard"] = (torch.rand(*labels.shape[:2], 1) >= self.dropped) | (labels[..., :1] < 0)
        return padded | alone | {"labels": labels, "mask": mask, "semantic": semantic, "acoustic": acoustic}


def fixed(request: Request) -> int:
    """Turns at the beginning of `context` that are no part of a dialogue."""
    return int(request.reference is not None)


def context(request: Request) -> list[Turn]:
    """What is heard before the turn that is asked for."""
    earlier = list(request.earlier) if isinstance(request, Dialogue) else []
    voice = request.reference
    return earlier if voice is None else [Turn(voice.phones, voice.codes, voice.language), *earlier]
