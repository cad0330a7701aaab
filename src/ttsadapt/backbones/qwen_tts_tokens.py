"""Prompt and speech tokens in one sequence: what all frontends of speech-token language models do alike."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from ttsadapt.backbones.base import Batch, Frontend, Request
from ttsadapt.backbones.qwen_tts_vocabulary import Rows
from ttsadapt.data.audio import load
from ttsadapt.data.pcm import resample
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import TooLong


class Codec(Protocol):
    """Waveform <-> speech tokens 0 .. tokens - 1."""

    sample_rate: int
    """Hz of what `decode` gives, and of what `encode` takes unless there is an `input_rate`"""
    tokens: int
    rate: float
    """tokens a second"""
    levels: int
    """tokens that belong together; an utterance is a whole number of such groups"""

    def fit(self, recordings: Iterable[Tensor], phones: Sequence[Sequence[Phone]] | None = None) -> None: ...
    def encode(self, audio: Tensor) -> Tensor: ...
    def decode(self, tokens: Tensor) -> Tensor: ...
    def allowed(self, position: int) -> range: ...
    def embedding(self) -> Tensor: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class VoicedCodec(Codec, Protocol):
    """Its tokens do not say whose voice it is: it is also fitted on phones, where they are known, and told the voice,
    `decode(tokens, voice)`."""

    voice_size: int

    def voice(self, audio: Tensor) -> Tensor: ...


def must_be_told(codec: Codec) -> TypeGuard[VoicedCodec]:
    return bool(getattr(codec, "voice_size", 0))


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
        return must_be_told(self.codec)

    def _told(self, audio: Tensor) -> tuple[Tensor, ...]:
        return (self.codec.voice(audio),) if must_be_told(self.codec) else ()

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

        `straight`: positions count from left to right. `row` and `position` (N,): where the supervised tokens stand, speech and end.
        Found here, where no device has to be waited for.
        With `dropped` > 0 also `heard` (B, L) bool, false at that share of the speech tokens, drawn anew: a model in training does
        not see those among its inputs, so that it cannot go by the last tokens alone and listens to the phones.
        """
        rows = [item["tokens"] for item in items]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad)
        lengths = torch.tensor([len(row) for row in rows])
        numbered = [self.positions(row[: int(item["prompt"])], len(row)) for item, row in zip(items, rows)]
        batch: Batch = {name: torch.stack([item[name] for item in items]) for name in ("prompt", "speaker", "frames")}
        batch["straight"] = all(torch.equal(own, torch.arange(len(own))) for own in numbered)
        batch["positions"] = torch.nn.utils.rnn.pad_sequence(numbered, batch_first=True)
        place = torch.arange(tokens.shape[1])
        mask, spoken = place < lengths[:, None], place >= batch["prompt"][:, None]
        batch["row"], batch["position"] = (mask & spoken).nonzero(as_tuple=True)
        if self.dropped:
            batch["heard"] = (torch.rand(tokens.shape) >= self.dropped) | ~spoken
        return batch | {"tokens": tokens, "mask": mask}
