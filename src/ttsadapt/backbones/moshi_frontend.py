"""Speech as Moshi has it: text and codes run side by side, a step for every frame (Défossez et al. 2024, section 3.4).

The inner monologue holds a piece of text at the frame where it is spoken and padding elsewhere. Acoustic codes come one step
after the semantic code of their frame. The other speaker's stream is silent. As in the paper's text-to-speech, the monologue
may be ahead of the audio by some steps (section 3.4.4, "Deriving streaming ASR and TTS").
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsadapt.backbones.base import Batch, Reference, Request
from ttsadapt.backbones.csm_frontend import CsmFrontend, Turn, context, fixed
from ttsadapt.backbones.frames import IGNORED, FrameCodec, right_padded, supervised_at
from ttsadapt.backbones.frames_text import BEGIN, END, PhoneText, TokenizerText
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, DataError

PADDING = ""
"""stands in a monologue where nothing new is said"""


class PhoneMonologue(PhoneText):
    """One id for every phone of the pretraining data."""

    def piece(self, symbol: str) -> int:
        return self._row(symbol)

    @property
    def padding(self) -> int:
        return self._rows[BEGIN]

    @property
    def end(self) -> int:
        return self._rows[END]


class TokenMonologue(TokenizerText):
    """Written text through Moshi's tokenizer; symbols are its pieces."""

    def spoken(self, utterance: Utterance) -> tuple[str, ...]:
        return tuple(self.tokenizer.tokenize("".join(super().spoken(utterance))))

    def piece(self, symbol: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(symbol)  # type: ignore[return-value]

    @property
    def padding(self) -> int:
        return self._special(self.tokenizer.pad_token_id, "padding")

    @property
    def end(self) -> int:
        return self._special(self.tokenizer.eos_token_id, "the end of a text")

    def _special(self, token: int | None, what: str) -> int:
        if token is None:
            raise CheckpointError(f"{self.path}: the tokenizer has no token for {what}: it is not Moshi's")
        return token


class MoshiFrontend(CsmFrontend):
    """Utterance -> `text` (S,), `codes` (S, K), what is said at each of S steps, `learnt` (S,), `frames` ().

    What was said before, a recording of the voice and the turns of a dialogue, is heard in the model's own stream, whoever spoke.
    """

    text: PhoneMonologue | TokenMonologue

    def __init__(
        self,
        codec: FrameCodec,
        text: PhoneMonologue | TokenMonologue,
        max_tokens: int = 3000,
        depth_share: float = 1.0,
        lead: int = 0,
        context: bool = True,
        context_turns: int = 4,
        reference_seconds: float = 3.0,
        recordings: int = 1200,
        hop: int = 256,
    ) -> None:
        """`max_tokens`: steps of all turns. `lead`: steps that the monologue is ahead of the audio. The others as in CsmFrontend."""
        super().__init__(
            codec, text, max_tokens, depth_share, context, context_turns, reference_seconds, recordings=recordings, hop=hop
        )  # fmt: skip
        self.lead = lead
        self.silence = torch.zeros(0, dtype=torch.long)
        """(K,) codes of a frame in which the other speaker says nothing"""

    @property
    def nothing(self) -> int:
        """The code that stands where there is no audio yet, or no more."""
        return self.codec.codewords

    def fit(self, utterances: Sequence[Utterance]) -> None:
        super().fit(utterances)
        self.silence = self.codec.codes(torch.zeros(self.codec.sample_rate))[-1].clone()

    def state(self) -> dict[str, Any]:
        return super().state() | {"silence": self.silence}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.silence = state["silence"]

    def _reference(self, utterance: Utterance) -> Reference:
        codes = self._codes(utterance)
        return Reference(self.monologue(utterance, len(codes)), codes, utterance.language)

    def monologue(self, utterance: Utterance, frames: int) -> tuple[str, ...]:
        """A symbol or PADDING for each frame: where its phone begins when that is known, else spread evenly.

        DataError when more is said than there are frames.
        """
        symbols = self.text.spoken(utterance)
        if len(symbols) > frames:
            raise DataError(
                f"{utterance.id}: {len(symbols)} pieces of text in {frames} frames are too many, there is one a frame: "
                "is this the text of another recording?"
            )
        starts = [p.start for p in utterance.phones]
        rate = self.codec.rate / self.codec.levels
        even = [i * frames / len(symbols) for i in range(len(symbols))]
        wanted = [s * rate for s in starts] if len(starts) == len(symbols) else even
        stream, free = [PADDING] * frames, 0
        for i, (symbol, at) in enumerate(zip(symbols, wanted)):
            place = min(max(int(at), free), frames - len(symbols) + i)
            stream[place], free = symbol, place + 1
        return tuple(stream)

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when the utterance does not fit into `max_tokens`; of its dialogue the oldest turns are left out until it does."""
        made, request = self._reference(utterance), self.request(utterance)
        turns = self.fitting([*context(request), Turn(made.phones, made.codes)], fixed(request), self._size)
        return self.conversation(turns, utterance.id)

    def _size(self, turns: Sequence[Turn]) -> int:
        return sum(len(t.codes) + self.lead + 1 for t in turns)

    def prompt(self, request: Request) -> dict[str, Tensor]:
        """`text`, `codes` of what is heard before. DataError when nothing more would fit."""
        room = self.lead + 2 + max(self.slowest(len(request.phones)), len(request.phones))
        asked = Turn(request.phones, torch.zeros(0, self.codec.levels, dtype=torch.long))
        before = self.fitting([*context(request), asked], fixed(request), lambda turns: self._size(turns[:-1]) + room)[:-1]
        made = self._laid_out(before) if before else self._empty()
        if len(made["text"]) + self.lead + 2 + len(request.phones) > self.max_tokens:
            raise DataError(
                f"{request.id}: the text and what comes before it take all of backbone.frontend.max_tokens={self.max_tokens}: "
                "split the text or give less context"
            )
        return made

    def queue(self, request: Request) -> list[int]:
        """What the monologue will say, one after the other; the end is the last."""
        return [*map(self.text.piece, request.phones), self.text.end]

    def _empty(self) -> dict[str, Tensor]:
        return {"text": torch.zeros(0, dtype=torch.long), "codes": torch.zeros(0, self.codec.levels, dtype=torch.long)}

    def _laid_out(self, turns: Sequence[Turn], emotion: str | None = None, closed: bool = True) -> dict[str, Tensor]:
        """`text`, `codes`, `turn`: for every turn its monologue, the end after it, and the audio `lead` steps later."""
        text, codes, owner = [], [], []
        for k, turn in enumerate(turns):
            said = [self.text.padding if s == PADDING else self.text.piece(s) for s in turn.phones]
            text.append(torch.tensor([*said, self.text.end, *[self.text.padding] * self.lead]))
            codes.append(self.delayed(turn.codes))
            owner.append(torch.full((len(text[-1]),), k))
        return {"text": torch.cat(text), "codes": torch.cat(codes), "turn": torch.cat(owner)}

    def delayed(self, codes: Tensor) -> Tensor:
        """(T, K) frames -> (lead + T + 1, K) steps: the acoustic codes one step after the semantic one."""
        semantic = F.pad(codes[:, :1], (0, 0, self.lead, 1), value=self.nothing)
        return torch.cat([semantic, F.pad(codes[:, 1:], (0, 0, self.lead + 1, 0), value=self.nothing)], 1)

    def _learnable(self, made: dict[str, Tensor]) -> Tensor:
        return torch.ones_like(made["text"], dtype=torch.bool)

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        learnt = features["learnt"] > 0
        spoken = learnt & (features["codes"][:, 0] != self.nothing)
        labels = self._text_labels(features)
        padding = int((labels == self.text.padding).sum())
        acoustic = sum(_share(n, self.depth_share) for n in features["learnt"][spoken].bincount()[1:].tolist())
        return {
            "text": int((labels != IGNORED).sum()) - padding,
            "padding": padding,
            "semantic": int(spoken.sum()),
            "acoustic": acoustic * (self.codec.levels - 1),
            "frames": int(features["frames"]),
        }

    def _text_labels(self, features: dict[str, Tensor]) -> Tensor:
        """(S,) the monologue up to its end in turns that are learnt."""
        labels = torch.full_like(features["text"], IGNORED)
        for turn in range(1, int(features["learnt"].max()) + 1):
            where = (features["learnt"] == turn).nonzero()[:, 0]
            said = where[: len(where) - self.lead]
            labels[said] = features["text"][said]
        return labels

    def _labels(self, features: dict[str, Tensor]) -> Tensor:
        """(S, K) labels of the codes; the frames whose acoustic codes are learnt are drawn anew at every call."""
        codes = features["codes"]
        labels = codes.masked_fill((features["learnt"][:, None] == 0) | (codes == self.nothing), IGNORED)
        for turn in range(1, int(features["learnt"].max()) + 1):
            where = ((features["learnt"] == turn) & (codes[:, 1] != self.nothing)).nonzero()[:, 0]
            order = torch.randperm(len(where))
            labels[where[order[_share(len(where), self.depth_share) :]], 1:] = IGNORED
        return labels

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`text` (B, S), `codes` and `labels` (B, S, K), `text_labels` (B, S), `mask` (B, S) bool, padded on the right, `speaker` (B, 0).

        `words`, `paddings`, `semantic`, `acoustic` are flat indices into B * S of the steps where that is learnt.
        """
        labels = right_padded([self._labels(i) for i in items], IGNORED)
        said = right_padded([self._text_labels(i) for i in items], IGNORED)
        flat = said.flatten()
        semantic, acoustic = supervised_at(labels)
        return {
            "text": right_padded([i["text"] for i in items], self.text.padding),
            "codes": right_padded([i["codes"] for i in items], self.nothing),
            "labels": labels,
            "text_labels": said,
            "mask": right_padded([torch.ones_like(i["text"], dtype=torch.bool) for i in items], False),
            "words": ((flat != IGNORED) & (flat != self.text.padding)).nonzero()[:, 0],
            "paddings": (flat == self.text.padding).nonzero()[:, 0],
            "semantic": semantic,
            "acoustic": acoustic,
            "frames": torch.stack([i["frames"] for i in items]),
            "speaker": torch.zeros(len(items), 0),
        }


def _share(frames: int, share: float) -> int:
    return max(1, round(frames * share))
