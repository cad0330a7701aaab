"""Phones and semantic tokens of a reference recording, then of the utterance: GPT-SoVITS goes on from the reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Batch, Frontend, Reference, Request
from ttsadapt.backbones.gpt_sovits.references import References
from ttsadapt.backbones.gpt_sovits.table import PhoneTable
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.speakers import evenly
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Phone, Utterance, phone_times
from ttsadapt.errors import ConfigError, DataError, TooLong
from ttsadapt.files import digest
from ttsadapt.text.phones import phonemize

OBJECTIVES = {"legacy": 1, "current": 0}
"""tokens that a recording without a reference is given: legacy never predicts the first one (until 2025-07, and what the
released weights were trained with), current predicts it from the last phone"""
LEAST = 11
"""tokens before which speech cannot end (AR/models/t2s_model.py)"""


class Codec(Protocol):
    """Waveform <-> semantic tokens 0 .. tokens - 1 and what they leave out, the voice."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def rate(self) -> float:
        """Tokens a second."""

    @property
    def voice_size(self) -> int: ...
    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None: ...
    def encode(self, audio: Tensor) -> Tensor: ...
    def voice(self, audio: Tensor) -> Tensor: ...
    def decode(self, tokens: Tensor, voice: Tensor) -> Tensor: ...
    def embedding(self) -> Tensor: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Prompt:
    """What stands before the first new token."""

    phones: Tensor
    """(P,) rows of the phone table: the reference's, then the text's"""
    positions: Tensor
    """(P,) of the phones"""
    given: Tensor
    """(G,) tokens of the reference"""
    context: Tensor | None = None
    """(P, bert_size); None: zeros everywhere"""


class GptSovitsFrontend(Frontend):
    """Utterance -> `phones` and their `positions` (P,), `tokens` (S,), both beginning with the reference's; `given` () how many of
    `tokens` are not to be predicted; `speaker` (E,) the voice as the codec has it; `frames` ()."""

    def __init__(
        self,
        codec: Codec,
        objective: str = "legacy",
        pairs: bool = True,
        references: int = 4,
        reference_seconds: float = 3.0,
        shortest: float = 0.5,
        longest: float = 10.0,
        pause: float = 0.0,
        max_seconds: float = 54.0,
        max_phones: int = 540,
        recordings: int = 1200,
        hop: int = 256,
        paced_positions: bool = False,
    ) -> None:
        """`objective`: legacy or current, see OBJECTIVES. `pairs`: learn from (reference, utterance) of one voice and emotion, as
        speech is made; else from single recordings, as the authors do.

        `references`: recordings of about `reference_seconds` kept of every voice and emotion, none below `shortest` or above `longest`
        seconds, with `pause` seconds of silence after them; speech goes on from the first. `max_seconds`, `max_phones`: of the
        reference and the utterance together.
        `recordings`: how many the codec is fitted on. `hop`: samples of a frame, for counting only.
        `paced_positions`: phones are numbered as far apart as they are in speech (see `Pacing`), the text's from where the reference's
        tokens end, so a token has about the position of its phone. The authors number phones from 0 on, whatever is said before.
        """
        if objective not in OBJECTIVES:
            raise ConfigError(f"backbone.frontend.objective={objective}: give one of {', '.join(OBJECTIVES)}")
        self.codec, self.objective, self.pairs = codec, objective, pairs
        self.references = References(references, reference_seconds, (shortest, longest), pause)
        self.max_seconds, self.max_phones, self.recordings, self.hop = max_seconds, max_phones, recordings, hop
        self.pacing = Pacing() if paced_positions else None
        self.pace = (0.0, 0.0, 0.0)
        """tokens a phone: least, mean and most of the pretraining data's utterances"""
        self._table: PhoneTable | None = None

    @property
    def table(self) -> PhoneTable:
        if self._table is None:
            raise DataError("the frontend has no phones yet: fit it on the pretraining data or restore it from a base")
        return self._table

    @property
    def max_tokens(self) -> int:
        return int(self.max_seconds * self.codec.rate)

    def fit(self, utterances: Sequence[Utterance]) -> None:
        spoken = {u.id: self.read(u) for u in Bar(utterances, "phones", unit="utt", leave=False)}
        if self.pacing:
            self.pacing.fit(utterances, spoken)
        chosen = [utterances[i] for i in evenly(len(utterances), self.recordings)]
        paces: list[float] = []

        def recordings() -> Iterable[Tensor]:
            for utterance in Bar(chosen, "recordings", unit="utt", leave=False):
                audio = load(utterance.audio, self.codec.sample_rate)
                paces.append(len(audio) / self.codec.sample_rate * self.codec.rate / len(spoken[utterance.id]))
                yield audio

        self._fit(spoken.values(), chosen, recordings())
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))
        self.enroll(utterances)

    def _fit(self, spoken: Iterable[Sequence[str]], utterances: Sequence[Utterance], recordings: Iterable[Tensor]) -> None:
        """The phone table, and the codec on the `recordings` of `utterances`: all must be looked at, they tell the pace."""
        self._table = PhoneTable.of(spoken)
        self.codec.fit(recordings, phone_times(utterances))

    @property
    def known_speakers(self) -> list[str]:
        return self.references.speakers

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """References and voices of the (speaker, emotion) pairs that are not known yet."""
        self.references.add(utterances, self.codec, self.refer)

    def refer(self, utterance: Utterance, codes: Tensor) -> Reference:
        return Reference(self.read(utterance), codes, utterance.language)

    def state(self) -> dict[str, Any]:
        return {
            "phones": self.table.symbols,
            "pace": list(self.pace),
            "pacing": self.pacing.state() if self.pacing else {},
            "references": self.references.state(),
            "codec": self.codec.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.codec.restore(state["codec"])
        self.references.restore(state["references"])
        low, mean, high = map(float, state["pace"])
        self.pace = (low, mean, high)
        self._table = PhoneTable(state["phones"])
        if self.pacing:
            self.pacing.restore(state["pacing"])

    def read(self, utterance: Utterance) -> tuple[str, ...]:
        """Phones of the text: those of the manifest, else espeak-ng's. DataError when there are none."""
        phones = tuple(p.symbol for p in utterance.phones) or tuple(phonemize(utterance.text, utterance.language))
        if all(symbol == PAUSE for symbol in phones):
            raise DataError(f"{utterance.id}: the text {utterance.text!r} has no phones: correct or remove it")
        return phones

    def request(self, utterance: Utterance) -> Request:
        found = self.references.of(utterance.speaker, utterance.emotion, utterance.id)
        return Request(
            utterance.id,
            self.read(utterance),
            found.voice,
            utterance.emotion,
            utterance.language,
            seed=int(digest(utterance.id, 8), 16),
            reference=found.references[0],
            voice=utterance.speaker,
        )

    def prompt(self, request: Request) -> Prompt:
        """What stands before the first new token.

        DataError when the objective needs a reference and there is none, and when the text is too long.
        """
        said = request.reference
        if said is None and OBJECTIVES[self.objective]:
            raise DataError(
                f"{request.id}: weights of the legacy objective cannot begin by themselves: give a reference recording, "
                "or train with backbone.frontend.objective=current"
            )
        symbols = [*(said.phones if said else ()), *request.phones]
        given = said.codes if said else torch.zeros(0, dtype=torch.long)
        if len(symbols) > self.max_phones or len(given) + LEAST > self.max_tokens:
            raise DataError(
                f"{request.id}: {len(symbols)} phones (reference included) are more than backbone.frontend.max_phones={self.max_phones}, "
                f"or its reference leaves no room in max_seconds={self.max_seconds:g}: split the text"
            )
        return Prompt(self.table.rows(symbols, request.id), self.numbered(said, request), given, self.context(request))

    def numbered(self, reference: Reference | None, request: Request) -> Tensor:
        """(P,) positions of the reference's phones, then of the text's."""
        before, tokens = (reference.phones, len(reference.codes)) if reference else ((), 0)
        if self.pacing is None:
            return torch.arange(len(before) + len(request.phones))
        return self.pacing.steps(request.phones, request.emotion, self.codec.rate, before, tokens)[:-1]

    def context(self, request: Request) -> Tensor | None:
        """(P, bert_size) of reference and text; None: zeros everywhere."""
        return None

    def bounds(self, phones: int) -> tuple[int, int]:
        """Fewest and most tokens of a text: half as fast again and half as slow again as anything that `fit` heard."""
        low, _, high = self.pace
        most = min(max(int(1.5 * high * phones), LEAST) + 1, self.max_tokens)
        return min(max(int(low * phones / 1.5), LEAST), most), most

    def spoken(self, tokens: Tensor, request: Request) -> Tensor:
        """(S,) new tokens -> (samples,)"""
        return self.codec.decode(tokens, request.speaker)

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        """TooLong when reference and utterance together do not fit."""
        request, audio = self.request(utterance), load(utterance.audio, self.codec.sample_rate)
        before = self.references.other(utterance) if self.pairs else None
        symbols = [*(before.phones if before else ()), *request.phones]
        own = self.codec.encode(audio)
        tokens = torch.cat([before.codes, own]) if before else own
        self._check(utterance.id, len(symbols), len(tokens))
        features = {
            "phones": self.table.rows(symbols, utterance.id),
            "positions": self.numbered(before, request),
            "tokens": tokens,
            "given": torch.tensor(len(before.codes) if before else OBJECTIVES[self.objective]),
            "speaker": request.speaker,
            "frames": torch.tensor(1 + len(audio) // self.hop),
        }
        context = self.context(replace(request, reference=before))
        return features if context is None else features | {"bert": context}

    def _check(self, where: str, phones: int, tokens: int) -> None:
        if phones > self.max_phones or tokens > self.max_tokens:
            raise TooLong(
                f"{where}: {phones} phones and {tokens} tokens are more than backbone.frontend.max_phones={self.max_phones} "
                f"or max_seconds={self.max_seconds:g}: split the recording, leave it out or raise the limit"
            )

    def lengths(self, features: dict[str, Tensor]) -> dict[str, int]:
        return {"tokens": len(features["tokens"]) + 1 - int(features["given"]), "frames": int(features["frames"])}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Batch:
        """`phones` and their `positions` (B, P), `tokens` (B, S), each padded on the right, with `phone_lengths`, `token_lengths`,
        `given`, `frames` (B,), `speaker` (B, E) and, where a text model is configured, `bert` (B, P, bert_size)."""
        batch: Batch = {}
        for name, lengths in (("phones", "phone_lengths"), ("tokens", "token_lengths")):
            batch[name] = pad_sequence([item[name] for item in items], batch_first=True)
            batch[lengths] = torch.tensor([len(item[name]) for item in items])
        batch["positions"] = pad_sequence([item["positions"] for item in items], batch_first=True)
        if "bert" in items[0]:
            batch["bert"] = pad_sequence([item["bert"] for item in items], batch_first=True)
        return batch | {name: torch.stack([item[name] for item in items]) for name in ("given", "speaker", "frames")}
