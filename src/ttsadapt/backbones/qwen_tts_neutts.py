"""The frontend of released NeuTTS models: their tokenizer, their phones, and voices cloned by going on from a recording."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.base import Reference, Request
from ttsadapt.backbones.qwen_tts_phones import phones_of
from ttsadapt.backbones.qwen_tts_tokens import Codec, SpeechTokenFrontend
from ttsadapt.backbones.qwen_tts_vocabulary import NEUTTS, TokenizerVocabulary
from ttsadapt.backbones.speakers import evenly
from ttsadapt.bars import Bar
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import DataError
from ttsadapt.files import digest

NEUTRAL = "neutral"


class NeuTTSFrontend(SpeechTokenFrontend):
    """An utterance trains alone, without a reference; speaking, the voice's reference comes first (NeuTTS, finetune.py, neutts.py)."""

    def __init__(
        self,
        codec: Codec,
        tokenizer: str,
        template: str = NEUTTS,
        max_tokens: int = 2048,
        references: bool = True,
        shortest: float = 1.0,
        longest: float = 12.0,
        recordings: int = 200,
        hop: int = 256,
        dropped: float = 0.0,
    ) -> None:
        """`tokenizer`: the released folder or a hub id. `template`: the prompt around {phones}.

        `references`: false speaks without one, as a voice that was tuned to can. `shortest`, `longest`: seconds of a reference.
        `recordings`: how many tell the pace. `hop`: samples of a frame, for counting only. `dropped`: see `collate`.
        """
        super().__init__(codec, max_tokens, hop, dropped)
        self.tokenizer, self.template = str(tokenizer), template
        self.with_references, self.shortest, self.longest, self.recordings = references, shortest, longest, recordings
        self.references: dict[str, dict[str, Reference]] = {}
        """by speaker and emotion"""

    @cached_property
    def vocabulary(self) -> TokenizerVocabulary:  # type: ignore[override]
        return TokenizerVocabulary(self.tokenizer, self.codec.tokens, self.template)

    def fit(self, utterances: Sequence[Utterance]) -> None:
        """The model and its codec are pretrained: only the pace of the data's speech is learnt."""
        heard = [utterances[i] for i in evenly(len(utterances), self.recordings)]
        paces = [seconds(u) * self.codec.rate / len(self.phones(u)) for u in Bar(heard, "pace", unit="utt", leave=False)]
        if not paces:
            raise DataError("the data has no utterance to learn the pace of speech from")
        self.pace = (min(paces), sum(paces) / len(paces), max(paces))

    def enroll(self, utterances: Sequence[Utterance]) -> None:
        """One reference for every speaker and emotion that has none: the longest usable recording, by id where several are."""
        if not self.with_references:
            return
        best: dict[tuple[str, str], tuple[float, Utterance]] = {}
        for utterance in sorted(utterances, key=lambda u: u.id):
            key, length = (utterance.speaker, utterance.emotion), seconds(utterance)
            known = utterance.emotion in self.references.get(utterance.speaker, {})
            if not known and self.shortest <= length <= self.longest and length > best.get(key, (0.0,))[0]:
                best[key] = (length, utterance)
        for (speaker, emotion), (_, utterance) in Bar(best.items(), "references", unit="clip", leave=False):
            codes = self.codec.encode(load(utterance.audio, self.heard_rate))
            self.references.setdefault(speaker, {})[emotion] = Reference(self.phones(utterance), codes, utterance.language)

    def reference(self, speaker: str, emotion: str, where: str) -> Reference | None:
        """The speaker's in that emotion, else neutral, else any. DataError when the speaker has none."""
        if not self.with_references:
            return None
        own = self.references.get(speaker)
        if not own:
            known = ", ".join(sorted(self.references)) or "none"
            raise DataError(
                f"{where}: speaker {speaker!r} has no reference, speakers with one: {known}; enroll a recording of {self.shortest:g} to "
                f"{self.longest:g} s, or speak without: backbone.frontend.references=false"
            )
        return own[next(e for e in (emotion, NEUTRAL, min(own)) if e in own)]

    def phones(self, utterance: Utterance) -> tuple[str, ...]:
        """Characters of what stands between the text marks, words and punctuation included."""
        return tuple(phones_of(utterance.text, utterance.language))

    def prompt(self, request: Request) -> Tensor:
        """The phones of reference and text, then the reference's codes, which the model goes on from."""
        text, reference = spelled(request.phones), request.reference
        if reference is None:
            return torch.tensor(self.vocabulary.prompt(text))
        ids = self.vocabulary.prompt(f"{spelled(reference.phones)} {text}")
        return torch.cat([torch.tensor(ids), reference.codes + self.vocabulary.speech.start])

    def bounds(self, request: Request) -> tuple[int, int]:
        """Half as fast again as the data's fastest; half as slow again as its slowest and a second of pauses on top."""
        (low, _, high), spoken = self.pace, len(request.phones)
        return int(low * spoken / 1.5), int(high * spoken * 1.5 + self.codec.rate)

    def request(self, utterance: Utterance) -> Request:
        reference = self.reference(utterance.speaker, utterance.emotion, utterance.id)
        seed = int(digest(utterance.id, 8), 16)
        return Request(
            utterance.id, self.phones(utterance), torch.zeros(0), utterance.emotion, utterance.language, seed, reference, utterance.speaker
        )

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        prompt = torch.tensor(self.vocabulary.prompt(spelled(self.phones(utterance))))
        return self.features(utterance, prompt, torch.zeros(0))

    def state(self) -> dict[str, Any]:
        kept = {
            speaker: {emotion: {"phones": list(r.phones), "codes": r.codes, "language": r.language} for emotion, r in own.items()}
            for speaker, own in self.references.items()
        }
        return {"pace": list(self.pace), "references": kept, "codec": self.codec.state(), "template": self.template}

    def restore(self, state: dict[str, Any]) -> None:
        self.codec.restore(state["codec"])
        self.pace = tuple(state["pace"])
        self.references = {
            speaker: {emotion: Reference(tuple(r["phones"]), r["codes"], r["language"]) for emotion, r in own.items()}
            for speaker, own in state["references"].items()
        }


def spelled(phones: Sequence[str]) -> str:
    """Symbols in a row, pauses ("_", of other frontends' phones) as blanks."""
    return " ".join("".join(phones).replace("_", " ").split())


def seconds(utterance: Utterance) -> float:
    return utterance.duration or len(load(utterance.audio, 16000)) / 16000
