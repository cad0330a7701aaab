"""What the cases measure on: speech-token language models of any size, over utterances of random tokens in NeuTTS's layout."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ttsadapt.backbones.base import SOURCE, TARGET, Batch, Request
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_tokens import SpeechTokenFrontend
from ttsadapt.callbacks.guard import FiniteLoss
from ttsadapt.callbacks.throughput import Throughput
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.module import AdaptationData
from ttsadapt.data.utterance import Utterance
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Strategy, Study, generator


@dataclass(frozen=True)
class Layout:
    """Sizes of a model and of what it reads."""

    hidden: int = 384
    intermediate: int = 1024
    blocks: int = 12
    heads: int = 6
    kv_heads: int = 2
    rows: int = 217_208
    """of the embedding"""
    targets: int = 65_537
    """rows that can be predicted: the last ones"""
    text: tuple[int, int] = (20, 60)
    """tokens, at least and at most"""
    speech: tuple[int, int] = (80, 400)
    utterances: int = 256
    tied: bool = True
    """predictions by the embedding's own rows"""

    def size(self) -> dict[str, Any]:
        """As transformers' Qwen2Config names it."""
        return {
            "hidden_size": self.hidden, "intermediate_size": self.intermediate, "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "tie_word_embeddings": self.tied,
        }  # fmt: skip

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Text (T,) and speech (S,) tokens of an utterance; the last of speech is the end."""
        g = torch.Generator().manual_seed(number)
        lengths = [int(torch.randint(low, high + 1, (), generator=g)) for low, high in (self.text, self.speech)]
        end = self.rows - self.targets
        text = torch.randint(end, (lengths[0],), generator=g)
        return text, torch.cat([torch.randint(end + 1, self.rows, (lengths[1],), generator=g), torch.tensor([end])])


class _Silent:
    """A codec that nobody asks for sound."""

    sample_rate, rate, levels = 16000, 50.0, 1

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens


class _Table:
    def __init__(self, layout: Layout) -> None:
        self.end = layout.rows - layout.targets
        self.speech, self.pad, self.rows = range(self.end + 1, layout.rows), 0, layout.rows

    def __len__(self) -> int:
        return self.rows


class Numbers(SpeechTokenFrontend):
    """Tokens follow from the number in an utterance's id."""

    def __init__(self, layout: Layout) -> None:
        longest = layout.text[1] + layout.speech[1] + 1
        super().__init__(_Silent(layout.targets - 1), max_tokens=longest, hop=320, dropped=0.0)  # type: ignore[arg-type]
        self.layout, self._table = layout, _Table(layout)

    @property
    def vocabulary(self) -> _Table:
        return self._table

    def __call__(self, utterance: Utterance) -> dict[str, Tensor]:
        text, speech = self.layout.draw(int(utterance.id))
        return {
            "tokens": torch.cat([text, speech]), "prompt": torch.tensor(len(text)), "speaker": torch.zeros(0),
            "frames": torch.tensor(len(speech)),
        }  # fmt: skip

    def fit(self, utterances: Sequence[Utterance]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...

    def prompt(self, request: Request) -> Tensor:
        return self.layout.draw(int(request.id))[0]

    def bounds(self, request: Request) -> tuple[int, int]:
        return self.layout.speech

    def request(self, utterance: Utterance) -> Request:
        return Request(utterance.id, (), torch.zeros(0))


@dataclass
class Setting:
    """A model with weights drawn at random, and its data."""

    backbone: QwenTTS
    target: FeatureSet
    source: FeatureSet
    place: tempfile.TemporaryDirectory[str]
    """goes when the setting goes"""

    @property
    def folder(self) -> Path:
        return Path(self.place.name)

    def learner(self, strategies: Mapping[str, Strategy], lr: float = 1e-4) -> Learner:
        """Adapted as a run would."""

        def look(name: str) -> Study:
            return Study(self.backbone, self.source, self.target, self.folder, 0, generator(0, name))

        claims = adapt(self.backbone, strategies, look)
        return Learner(self.backbone, strategies, claims, lambda groups: torch.optim.AdamW(groups, lr=lr))

    def batches(self, size: int) -> list[Batch]:
        """The target in batches of so many utterances, sorted by length as training has them: little is padding."""
        ids = sorted(self.target.ids, key=lambda i: self.target.lengths[i]["frames"])
        return [self.target.collate(ids[n : n + size]) for n in range(0, len(ids), size)]

    def data(self, frames: int, seed: int) -> AdaptationData:
        """`frames` of an optimiser step; 1: the fewest utterances that a step may have, which are 4."""
        return AdaptationData(self.target, None, {}, None, frames, seed)


def setting(layout: Layout) -> Setting:
    place = tempfile.TemporaryDirectory(prefix="bench-")
    folder = Path(place.name)
    frontend = Numbers(layout)
    sets = []
    for name, origin, first in (("target", TARGET, 0), ("source", SOURCE, layout.utterances)):
        utterances = [Utterance(str(first + i), folder / "none.wav", "", "nobody") for i in range(layout.utterances)]
        features = Features(folder / name, frontend, utterances, name)
        features.produce()
        sets.append(FeatureSet(features.folder, frontend, utterances, origin))
    torch.manual_seed(0)
    target, source = sets
    return Setting(QwenTTS(frontend, **layout.size()), target, source, place)


class Counted(L.Callback):
    """Tokens that training has gone through: prompt, speech and end, no padding."""

    def __init__(self) -> None:
        self.tokens = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.tokens += int(batch["mask"].sum())


def tokens(batches: Sequence[Batch]) -> int:
    """Of prompt, speech and end."""
    return sum(int(batch["mask"].sum()) for batch in batches)


def backward(learner: Learner, batch: Batch) -> None:
    """Forward, loss, gradients: a training step but for its optimiser."""
    torch.stack(list(learner.terms(batch).values())).sum().backward()


def fitting(learner: Learner, data: Callable[[int], AdaptationData], steps: int) -> Callable[[], int]:
    """Repeats of so many optimiser steps under Lightning, as a run makes them; each sees batches of its own."""
    repeat = 0

    def work() -> int:
        nonlocal repeat
        counted = Counted()
        trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", devices=1, gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, log_every_n_steps=10,
            use_distributed_sampler=False, callbacks=[counted, FiniteLoss(), Throughput()],
        )  # fmt: skip
        trainer.fit(learner, data(repeat))
        repeat += 1
        return counted.tokens

    return work
