"""What CosyVoice's language models share: rows in, predictions at supervised positions out; decoding with a cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.base import Batch, Slot
from ttsadapt.backbones.cosyvoice.head import Spoken
from ttsadapt.backbones.cosyvoice.layout import NOTHING, SPEECH, Layout
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.frames import codeword_table
from ttsadapt.backbones.official import Layout as Places

INPUT_STD, OUTPUT_STD = 0.2, 0.04
"""of a weight; the input's is about what attention adds to the residual stream, the output's keeps the first loss near uniform"""


@dataclass
class Prompt:
    """What an utterance's speech tokens follow, and how they are drawn."""

    kinds: Tensor
    """(P,)"""
    ids: Tensor
    """(P,)"""
    text: Tensor
    """(T,) text tokens, for models that encode them"""
    positions: Tensor
    """(P,) rotary positions, for models that have some"""
    speaker: Tensor
    """(E,)"""
    least: int
    """speech tokens"""
    most: int
    uniform: Callable[[], float]
    """its own stream of random numbers"""


class SpeechLM(nn.Module, ABC):
    """`text_rows` text tokens and the speech tokens of `layout` in one row."""

    adaptable: ClassVar[tuple[str, ...]] = ()
    """globs over names in this module"""
    feeds: ClassVar[tuple[str, ...]] = ()
    """globs over the feed-forwards of its blocks"""
    places: ClassVar[dict[str, Places]] = {}
    """by the layout's family: where our names stand in the authors' file"""
    layout: Layout
    llm_decoder: nn.Linear
    speech_embedding: nn.Embedding
    smoothing: float = 0.0

    @property
    @abstractmethod
    def text_rows(self) -> int:
        """Of the text embedding."""

    @property
    @abstractmethod
    def blocks(self) -> dict[str, nn.Module]: ...

    @property
    def slot(self) -> Slot:
        """Names in this module."""
        return Slot(self.llm_decoder.in_features, self.feeds)

    @torch.no_grad()
    def begin(self, codewords: Tensor) -> None:
        """Draw tables anew, for training from scratch: speech tokens lie as their `codewords` (tokens, E) do.

        A model of random rows has to learn token by token which of them sound alike.
        """
        table = codeword_table(codewords, 1, self.llm_decoder.in_features)[0]
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=INPUT_STD)
        self.speech_embedding.weight[: len(table)] = INPUT_STD * table
        self.llm_decoder.weight[: len(table)] = OUTPUT_STD * (table + 0.25 * torch.randn_like(table))

    @property
    def inner(self) -> nn.Module:
        """The transformers model where there is one."""
        return self

    @abstractmethod
    def embed(self, kinds: Tensor, ids: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        """(B, L), (B, L), text (B, T) padded on the right, (B, E) -> (B, L, D)."""

    @abstractmethod
    def states(self, embedded: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, L, D) rows padded on the right -> (B, L, D), what `llm_decoder` reads: causal, so padding is seen by padding only.

        `positions` (B, L): from left to right when not given.
        """

    @abstractmethod
    def prefill(self, rows: Sequence[Tensor], positions: Sequence[Tensor]) -> "tuple[Tensor, Decoding]":
        """Prompts (P_i, D), (P_i,) -> states (B, D) of their last positions, and what `step` goes on from."""

    @abstractmethod
    def embed_speech(self, tokens: Tensor) -> Tensor:
        """(B,) -> (B, D)"""

    def forward(self, batch: Batch) -> Spoken:
        """Supervised positions of `batch`: `kinds`, `symbols`, `targets` (B, L), `text` (B, T), `speaker` (B, E)

        and, where there are, `positions` and `heard` (B, L).
        """
        embedded = self.embed(batch["kinds"], batch["symbols"], batch["text"], batch["speaker"])
        if self.training and "heard" in batch:
            embedded = embedded * batch["heard"][..., None]
        states = self.states(embedded, batch.get("positions"))
        row, position = (batch["targets"] != NOTHING).nonzero(as_tuple=True)
        target, worth = batch["targets"][row, position], batch.get("worth")
        return Spoken(
            target,
            row,
            "tokens",
            hidden=states[row, position],
            project=self.llm_decoder,
            smoothing=self.smoothing,
            worth=None if worth is None else worth[row],
        )

    def spoken(self, batch: Batch) -> Tensor:
        """(B, L) bool: positions that hold a speech token."""
        return batch["mask"] & (batch["kinds"] == SPEECH) & (batch["symbols"] < self.layout.tokens)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """Speech tokens after each prompt. The module is in eval mode."""
        device = self.llm_decoder.weight.device
        said: list[list[int]] = [[] for _ in prompts]
        states, decoding = self.prefill([self._embedded(p, device) for p in prompts], [p.positions.to(device) for p in prompts])
        active = list(range(len(prompts)))
        while True:
            logits = self.llm_decoder(states).float().cpu()
            chosen = [self._choose(prompts[i], said[i], row, sampling) for i, row in zip(active, logits)]
            going = [k for k, token in enumerate(chosen) if token is not None]
            if not going:
                return said
            if len(going) < len(active):
                decoding.select(torch.tensor(going, device=device))
                active = [active[k] for k in going]
            tokens = [token for token in chosen if token is not None]
            for i, token in zip(active, tokens):
                said[i].append(token)
            states = decoding.step(self.embed_speech(torch.tensor(tokens, device=device)))

    def _embedded(self, prompt: Prompt, device: torch.device) -> Tensor:
        parts = (part[None].to(device) for part in (prompt.kinds, prompt.ids, prompt.text, prompt.speaker))
        return self.embed(*parts)[0]

    def _choose(self, prompt: Prompt, said: Sequence[int], logits: Tensor, sampling: Sampling) -> int | None:
        """The next speech token; None at the end. Before `least` tokens no row that ends an utterance can be drawn."""
        if len(said) >= prompt.most:
            return None
        scores = logits[: self.layout.tokens] if len(said) < prompt.least else logits
        token = sampling.draw(scores, prompt.uniform, said)
        return token if token < self.layout.tokens else None


class Decoding(ABC):
    """The cache of a batch under way."""

    @abstractmethod
    def step(self, embedded: Tensor) -> Tensor:
        """(B, D) of the tokens just said -> (B, D) states."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""


def looked_up(kinds: Tensor, ids: Tensor, kind: int, table: nn.Embedding) -> Tensor:
    """(B, L, D) vectors of `table` where a position is of `kind`, those of its row 0 elsewhere."""
    return F.embedding(torch.where(kinds == kind, ids, 0), table.weight)


def placed(kinds: Tensor, *tables: tuple[int, Tensor]) -> Tensor:
    """Vectors (B, L, D) of several kinds, each taken where `kinds` says so."""
    x = tables[0][1]
    for kind, vectors in tables[1:]:
        x = torch.where((kinds == kind)[..., None], vectors, x)
    return x


def without_long_silence(tokens: Sequence[int], silent: Sequence[int], longest: int) -> list[int]:
    """`tokens` with runs of `silent` ones cut to `longest`: CosyVoice 3 leaves the rest out before the flow hears them."""
    quiet, kept, run = set(silent), [], 0
    for token in tokens:
        run = run + 1 if token in quiet else 0
        if run <= longest:
            kept.append(token)
    return kept
