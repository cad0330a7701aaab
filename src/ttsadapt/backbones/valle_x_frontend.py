"""Phones and codec frames for VALL-E X, and the recordings whose voice and emotion it goes on with."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Batch, Frontend, Reference, Request
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.speakers import evenly
from ttsadapt.backbones.valle_x_generate import Prompt
from ttsadapt.backbones.valle_x_prompts import Given, Prefix, Prompting
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Phone, Utterance, phone_times
from ttsadapt.errors import CheckpointError, DataError, TooLong
from ttsadapt.files import digest
from ttsadapt.text.vallex import Text

SHORTEST = 0.2
"""seconds of a recording that a voice can be taken from"""


class LevelCodec(Protocol):
    """Waveform <-> codes of several levels."""

    sample_rate: int
    levels: int
    codewords: int
    rate: float
    """codes a second, all levels counted"""

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None: ...
    def codes(self, audio: Tensor) -> Tensor: ...
    def decode_codes(self, codes: Tensor) -> Tensor: ...
    def embedding(self) -> Tensor: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class VALLEXFrontend(Frontend):
    """Utterance -> `phones`, `languages`, `positions` (L,), `codes` (T, Q), `voice` () its row in `voices`, `own` () its place among
    the references."""

    def __init__(
        self,
        codec: LevelCodec,
        text: Text,
        prompting: Prompting | None = None,
        continuation: bool = False,
        references: int = 4,
        reference_seconds: float = 3.0,
        frames_per_phone: float | None = None,
        max_frames: int = 1650,
        max_phones: int = 600,
        recordings: int = 1200,
        dropped: float = 0.0,
        early: float = 1.0,
        paced_positions: bool = False,
    ) -> None:
        """`prompting`: what the later levels are shown in training; None: the beginning of the utterance.

        `continuation`: train on a reference of the voice followed by the utterance, as synthesis does; a drawn one each time.
        `references`: of a (speaker, emotion), those nearest to `reference_seconds`. `max_frames`, `max_phones`: of reference and
        utterance together. `frames_per_phone`: how long synthesis may get; None: half as long again as the training data ever are.
        `recordings`: how many the codec is fitted on. `dropped`: share of its own codes that the first decoder does not see while it
        trains, drawn anew each time: it cannot go by the last codes alone and listens to the phones. `early`: 1 draws stages evenly, more
        draws the first ones, which carry the most, more often. `paced_positions`: phones are numbered as far apart as they are in speech
        (see `Pacing`), from where the reference's frames end; the released model numbers them from 0 on, whatever is said before.
        """
        self.codec, self.text = codec, text
        self.prompting: Prompting = Given() if continuation else prompting or Prefix()
        self.continuation, self.kept, self.reference_seconds = continuation, references, reference_seconds
        self.frames_per_phone, self.max_frames, self.max_phones = frames_per_phone, max_frames, max_phones
        self.recordings, self.dropped, self.early = recordings, dropped, early
        self.pacing = Pacing() if paced_positions else None
        self.voices: list[tuple[str, str]] = []
        """(speaker, emotion) of each row"""
        self.references: list[list[Reference]] = []
        """of each voice, the best first"""
        self._owners: list[list[str]] = []
        """ids of the utterances that the references are"""
        self.pace = (0.0, 0.0)
        """frames a phone: least and most of the pretraining data"""

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.codec.rate / self.codec.levels

    def fit(self, utterances: Sequence[Utterance]) -> None:
        spoken = {u.id: self.text.spoken(u) for u in Bar(utterances, "phones", unit="utt", leave=False)}
        self.text.fit(spoken.values(), {u.language for u in utterances})
        if self.pacing:
            self.pacing.fit(utterances, spoken)
        paces: list[float] = []

        chosen = [utterances[i] for i in evenly(len(utterances), self.recordings)]

        def recordings() -> Iterable[Tensor]:
            for utterance in Bar(chosen, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.codec.sample_rate)
                paces.append(len(audio) / self.codec.sample_rate * self.frame_rate / len(spoken[utterance.id]))
                yield audio

        self.codec.fit(recordings(), phone_times(chosen))
        self.pace = (min(paces, default=0.0), max(paces, default=0.0))

    @property
    def known_speakers(self) -> list[str]:
        return sorted({speaker for speaker, _ in self.voices})

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """Keep references of the voices that have none yet; a voice that is known keeps its own."""
        groups: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in sorted(utterances, key=lambda u: (abs(u.duration - self.reference_seconds), u.id)):
            if utterance.duration >= SHORTEST:
                groups.setdefault((utterance.speaker, utterance.emotion), []).append(utterance)
        new = sorted(set(groups) - set(self.voices))
        for voice in Bar(new, "references", unit="voice", leave=False):
            chosen = groups[voice][: self.kept]
            self.voices.append(voice)
            self._owners.append([u.id for u in chosen])
            self.references.append([Reference(self.text.spoken(u), self._codes(u), u.language) for u in chosen])

    def state(self) -> dict[str, Any]:
        kept = [
            {"phones": list(r.phones), "codes": r.codes.short(), "language": r.language, "voice": i, "id": owner}
            for i, (rs, owners) in enumerate(zip(self.references, self._owners))
            for r, owner in zip(rs, owners)
        ]
        voices = [list(v) for v in self.voices]
        pacing = self.pacing.state() if self.pacing else {}
        fitted = {"text": self.text.state(), "codec": self.codec.state(), "pace": list(self.pace), "pacing": pacing}
        return fitted | {"voices": voices, "references": kept}

    def restore(self, state: dict[str, Any]) -> None:
        """CheckpointError when it was saved by another kind of frontend or codec."""
        if not {"text", "codec", "pace", "voices", "references"} <= state.keys():
            raise CheckpointError(f"the saved frontend is not VALL-E X's, it holds {', '.join(sorted(state))}: use the base's own config")
        self.text.restore(state["text"])
        self.codec.restore(state["codec"])
        if self.pacing:
            self.pacing.restore(state["pacing"])
        self.pace = (float(state["pace"][0]), float(state["pace"][1]))
        self.voices = [(speaker, emotion) for speaker, emotion in state["voices"]]
        self.references, self._owners = [[] for _ in self.voices], [[] for _ in self.voices]
        for kept in state["references"]:
            self.references[kept["voice"]].append(Reference(tuple(kept["phones"]), kept["codes"].long(), kept["language"]))
            self._owners[kept["voice"]].append(kept["id"])

    def voice(self, speaker: str, emotion: str, where: str) -> int:
        """Row of the nearest voice: this emotion, else the speaker's neutral one, else any of the speaker."""
        own = [v for v in self.voices if v[0] == speaker]
        if not own:
            known = ", ".join(sorted({v[0] for v in self.voices})) or "none"
            raise DataError(
                f"{where}: no recording of {SHORTEST} s or more is known to take the voice of {speaker!r} from, "
                f"there are voices of {known}: add training recordings of it"
            )
        wanted = next((v for v in ((speaker, emotion), (speaker, "neutral")) if v in own), min(own))
        return self.voices.index(wanted)

    def request(self, utterance: Utterance) -> Request:
        return Request(
            utterance.id,
            self.text.spoken(utterance),
            torch.zeros(0),
            utterance.emotion,
            utterance.language,
            seed=int(digest(utterance.id, 8), 16),
            reference=self.references[self.voice(utterance.speaker, utterance.emotion, utterance.id)][0],
            voice=utterance.speaker,
        )

    def prompt(self, request: Request) -> Prompt:
        """What generation starts from; DataError when reference and text leave no room for speech."""
        phones, languages = self.text.rows(request.phones, request.language, request.id)
        reference, codes = request.reference, torch.zeros(0, self.codec.levels, dtype=torch.long)
        if reference is not None:
            before, speaks = self.text.rows(reference.phones, reference.language, f"the reference of {request.id}")
            phones, languages, codes = torch.cat([before, phones]), torch.cat([speaks, languages]), reference.codes.long()
        own, room = len(request.phones), self.max_frames - len(codes)
        positions = torch.cat([self.numbered(reference), self.begun(reference) + self.counted(request.phones, request.emotion)])
        least = max(1, int(self.pace[0] * own / 1.5))
        if len(phones) > self.max_phones or least > room:
            raise DataError(
                f"{request.id}: {len(phones)} phones and at least {len(codes) + least} frames, reference included, are more than "
                f"backbone.frontend.max_phones={self.max_phones} or max_frames={self.max_frames}: split the text"
            )
        if self.frames_per_phone is not None:
            return Prompt(phones, languages, positions, codes, 1, min(int(self.frames_per_phone * len(phones)), room), request.seed)
        return Prompt(phones, languages, positions, codes, least, min(int(self.pace[1] * own * 1.5) + 1, room), request.seed)

    def counted(self, phones: Sequence[str], emotion: str | None) -> Tensor:
        """(L,) positions of phones that nothing comes before."""
        if self.pacing is None:
            return torch.arange(len(phones))
        return self.pacing.steps(phones, emotion, self.frame_rate)[:-1]

    def numbered(self, reference: Reference | None) -> Tensor:
        """(L,) positions of what a reference says; with `paced_positions` they fill its frames."""
        if reference is None or self.pacing is None:
            return torch.arange(len(reference.phones) if reference else 0)
        return self.pacing.steps((), None, self.frame_rate, reference.phones, len(reference.codes))[:-1]

    def begun(self, reference: Reference | None) -> int:
        """Position of the first phone after a reference."""
        if reference is None:
            return 0
        return len(reference.codes if self.pacing else reference.phones)

    def _codes(self, utterance: Utterance) -> Tensor:
        return self.codec.codes(load(utterance.audio, self.codec.sample_rate)).long()

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_frames` or `max_phones`."""
        spoken = self.text.spoken(utterance)
        phones, languages = self.text.rows(spoken, utterance.language, utterance.id)
        voice = self.voice(utterance.speaker, utterance.emotion, utterance.id) if self.continuation else -1
        owners, own = (self._owners[voice], utterance.id) if self.continuation else ([], "")
        codes = self._codes(utterance)
        self._check_length(utterance.id, len(phones), len(codes), self.references[voice] if self.continuation else [])
        return {
            "phones": phones,
            "languages": languages,
            "positions": self.counted(spoken, utterance.emotion),
            "codes": codes,
            "voice": torch.tensor(voice),
            "own": torch.tensor(owners.index(own) if own in owners else -1),
        }

    def _check_length(self, where: str, phones: int, frames: int, references: list[Reference]) -> None:
        phones += max((len(r.phones) for r in references), default=0)
        frames += max((len(r.codes) for r in references), default=0)
        if frames > self.max_frames or phones > self.max_phones:
            raise TooLong(
                f"{where}: {frames} frames or {phones} phones do not fit into backbone.frontend.max_frames={self.max_frames} and "
                f"max_phones={self.max_phones}: split the recording, leave it out or raise the limits"
            )

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        """Frames (of every later level), and steps of the first level: its frames and the end."""
        frames = len(features["codes"])
        return {"frames": frames, "steps": frames + 1}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`phones`, `languages`, `positions`, `spoken` (B, L); `codes` (B, T, Q), `frames`, `prompt` (B,): all, and those of the reference;

        for the later levels `stage`, drawn from 1 .. Q - 1, and what `prompting` shows of the frames.
        """
        before = [self._reference(item) for item in items]
        phones = [torch.cat([r["phones"], item["phones"]]) for r, item in zip(before, items)]
        languages = [torch.cat([r["languages"], item["languages"]]) for r, item in zip(before, items)]
        positions = [torch.cat([r["positions"], r["begun"] + item["positions"]]) for r, item in zip(before, items)]
        whole = [torch.cat([r["codes"], item["codes"]]) for r, item in zip(before, items)]
        codes, frames = pad_sequence(whole, batch_first=True), torch.tensor([len(c) for c in whole])
        prompt = torch.tensor([len(r["codes"]) for r in before])
        shown = self.prompting(codes, frames, prompt, self.frame_rate)
        lengths = torch.tensor([len(p) for p in phones])
        batch = {
            "phones": pad_sequence(phones, batch_first=True),
            "languages": pad_sequence(languages, batch_first=True),
            "positions": pad_sequence(positions, batch_first=True),
            "spoken": torch.arange(int(lengths.max())) < lengths[:, None],
            "codes": codes,
            "frames": frames,
            "prompt": prompt,
            "speaker": torch.zeros(len(items), 0),
            "stage": 1 + int(torch.rand(()) ** self.early * (self.codec.levels - 1)),
        }
        if self.dropped:  # what begins speech, and the reference, are always seen
            position = torch.arange(codes.shape[1] + 1)
            batch["seen"] = (torch.rand(len(items), len(position)) >= self.dropped) | (position <= prompt[:, None])
        names = {"shown": shown.codes, "heard": shown.heard, "known": shown.known, "wanted": shown.wanted, "scale": shown.scale}
        return batch | names

    def _reference(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """What an utterance goes on from in training: any reference of its voice but itself; nothing without continuation."""
        nothing = {name: item[name][:0] for name in ("phones", "languages", "positions", "codes")} | {"begun": torch.tensor(0)}
        if not self.continuation:
            return nothing
        others = [r for i, r in enumerate(self.references[int(item["voice"])]) if i != int(item["own"])]
        if not others:
            return nothing
        reference = others[int(torch.randint(len(others), ()))]
        phones, languages = self.text.rows(reference.phones, reference.language, "a reference")
        begun, positions = torch.tensor(self.begun(reference)), self.numbered(reference)
        return {"phones": phones, "languages": languages, "positions": positions, "begun": begun, "codes": reference.codes.long()}
