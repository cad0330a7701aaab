"""Recordings that speech goes on from, by speaker and emotion."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsadapt.backbones.base import Reference
from ttsadapt.backbones.speakers import spread
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest

NEUTRAL = "neutral"


class Listener(Protocol):
    @property
    def sample_rate(self) -> int: ...
    def encode(self, audio: Tensor) -> Tensor: ...
    def voice(self, audio: Tensor) -> Tensor: ...


Make = Callable[[Utterance, Tensor], Reference]
"""what a reference says, around the codec's tokens of its recording"""


@dataclass(frozen=True)
class Voice:
    """A speaker in one emotion."""

    voice: Tensor
    """(E,) as the codec has it, averaged over recordings"""
    ids: tuple[str, ...]
    """utterances that the references are recordings of"""
    references: tuple[Reference, ...]


class References:
    """At most `each` of every (speaker, emotion): those whose length is nearest to `seconds`."""

    kind: type[Reference] = Reference

    def __init__(self, each: int, seconds: float, within: tuple[float, float], pause: float = 0.0, voices: int = 10) -> None:
        """`within`: least and most seconds of one. `pause`: silence after each. `voices`: recordings that a voice is averaged over."""
        self.each, self.seconds, self.within, self.pause, self.voices = max(1, each), seconds, within, pause, voices
        self._known: dict[tuple[str, str], Voice] = {}

    @property
    def speakers(self) -> list[str]:
        return sorted({speaker for speaker, _ in self._known})

    def add(self, utterances: Sequence[Utterance], codec: Listener, make: Make) -> None:
        """DataError when all recordings of a new speaker are too short; then no voice is added."""
        groups: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in utterances:
            key = (utterance.speaker, utterance.emotion)
            if key not in self._known:
                groups.setdefault(key, []).append(utterance)
        added = {key: self._voice(group, codec, make) for key, group in Bar(sorted(groups.items()), "voices", unit="voice", leave=False)}
        found = {key: voice for key, voice in added.items() if voice is not None}
        for speaker in sorted({speaker for speaker, _ in added} - {speaker for speaker, _ in {**self._known, **found}}):
            least, most = self.within
            raise DataError(
                f"no recording of {speaker!r} lasts {least:g} .. {most:g} s (backbone.frontend.shortest, longest): "
                "a voice needs one to go on from"
            )
        self._known |= found

    def _voice(self, utterances: Sequence[Utterance], codec: Listener, make: Make) -> Voice | None:
        least, most = self.within
        usable = sorted((u for u in utterances if least <= u.duration <= most), key=lambda u: (abs(u.duration - self.seconds), u.id))
        if not usable:
            return None
        chosen = usable[: self.each]
        voice = torch.stack([codec.voice(load(u.audio, codec.sample_rate)) for u in spread(usable, self.voices)]).mean(0)
        silence = int(self.pause * codec.sample_rate)
        references = tuple(make(u, codec.encode(F.pad(load(u.audio, codec.sample_rate), (0, silence)))) for u in chosen)
        return Voice(voice, tuple(u.id for u in chosen), references)

    def of(self, speaker: str, emotion: str, where: str) -> Voice:
        """In this emotion, else neutral, else any; DataError for a speaker nobody knows."""
        mine = {e: voice for (s, e), voice in sorted(self._known.items()) if s == speaker}
        if not mine:
            known = ", ".join(sorted({s for s, _ in self._known}))
            raise DataError(f"{where}: speaker {speaker!r} is unknown, there are {known}: enroll it from recordings")
        return mine.get(emotion) or mine.get(NEUTRAL) or next(iter(mine.values()))

    def other(self, utterance: Utterance) -> Reference | None:
        """A reference that is not the utterance itself: always the same one for it; None when the speaker has no other recording."""
        voice = self.of(utterance.speaker, utterance.emotion, utterance.id)
        others = [r for i, r in zip(voice.ids, voice.references) if i != utterance.id]
        return others[int(digest(utterance.id, 8), 16) % len(others)] if others else None

    def state(self) -> list[dict[str, Any]]:
        return [
            {
                "speaker": speaker,
                "emotion": emotion,
                "voice": voice.voice,
                "ids": list(voice.ids),
                "references": [asdict(r) | {"phones": list(r.phones)} for r in voice.references],
            }
            for (speaker, emotion), voice in sorted(self._known.items())
        ]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        self._known = {(s["speaker"], s["emotion"]): self._restored(s) for s in state}

    def _restored(self, saved: dict[str, Any]) -> Voice:
        references = tuple(self.kind(**(r | {"phones": tuple(r["phones"])})) for r in saved["references"])
        return Voice(saved["voice"], tuple(saved["ids"]), references)
