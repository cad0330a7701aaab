"""Semantic tokens one after the other, with a key-value cache. The cache is exact: phones do not look at tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.decoding import KeyValues, Sampling, uniforms
from ttsadapt.backbones.parts import evaluating
from ttsadapt.backbones.prefix_lm import caches, prefix_mask

if TYPE_CHECKING:
    from ttsadapt.backbones.gpt_sovits.backbone import GptSovits
    from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend, Prompt


@dataclass
class Row:
    """One utterance while it is decoded."""

    prompt: Prompt
    sampling: Sampling
    uniform: Callable[[], float]
    least: int
    """tokens before which it cannot end"""
    most: int
    """tokens after which it must"""
    said: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, frontend: GptSovitsFrontend, request: Request, sampling: Sampling) -> Self:
        return cls(frontend.prompt(request), sampling, uniforms(request.seed), *frontend.bounds(len(request.phones)))

    def go_on(self, logits: Tensor) -> bool:
        """(V,) logits, the end last: say the next token, or false at the end.

        As the authors do it, an utterance ends when the end is drawn and also when it is the likeliest (AR/models/t2s_model.py).
        """
        if len(self.said) >= self.most:
            return False
        end = len(logits) - 1
        scores = logits[:end] if len(self.said) < self.least else logits
        so_far = [*self.prompt.given.tolist(), *self.said] if self.sampling.repetition_penalty != 1 else []
        likeliest = replace(self.sampling, temperature=0.0).draw(scores, self.uniform, so_far)
        drawn = likeliest if likeliest == end else self.sampling.draw(scores, self.uniform, so_far)
        if drawn == end:
            return False
        self.said.append(drawn)
        return True


@torch.inference_mode()
def decode(model: GptSovits, rows: Sequence[Row]) -> list[Tensor]:
    """(S,) tokens said by each row. Rows that have ended leave the batch."""
    device = next(model.parameters()).device
    with evaluating(model):
        states, cache, filled = _prefill(model, rows, device)
        active = list(range(len(rows)))
        while True:
            logits = model.ar_predict_layer(states).float().cpu()
            going = [k for k, i in enumerate(active) if rows[i].go_on(logits[k])]
            if not going:
                return [torch.tensor(row.said, dtype=torch.long) for row in rows]
            if len(going) < len(active):
                kept = torch.tensor(going, device=device)
                filled, active = filled[kept], [active[k] for k in going]
                for layer in cache:
                    layer.select(kept)
            filled = F.pad(filled, (0, 1), value=True)
            states = _step(model, [rows[i] for i in active], cache, filled)


def _step(model: GptSovits, rows: Sequence[Row], cache: list[KeyValues], filled: Tensor) -> Tensor:
    """(B, D) states of the tokens said last; `filled` (B, slots) bool, theirs included."""
    device = filled.device
    token = torch.tensor([row.said[-1] for row in rows], device=device)[:, None]
    start = torch.tensor([len(row.prompt.given) + len(row.said) - 1 for row in rows], device=device)
    x = model.embed_audio(token, start)
    for layer, keys_values in zip(model.h.layers, cache):
        x = layer(x, filled[:, None, None], cache=keys_values)
    return x[:, -1]


def _prefill(model: GptSovits, rows: Sequence[Row], device: torch.device) -> tuple[Tensor, list[KeyValues], Tensor]:
    """(B, D) states of what stands before each row's first new token, the caches, and (B, slots) which slots are filled."""
    prompts = [row.prompt for row in rows]
    phones, positions, given = (
        pad_sequence([*part], batch_first=True).to(device)
        for part in zip(*((prompt.phones, prompt.positions, prompt.given) for prompt in prompts))
    )
    features = [prompt.context for prompt in prompts if prompt.context is not None]
    bert = pad_sequence(features, batch_first=True).to(device) if features else None
    text = torch.tensor([len(prompt.phones) for prompt in prompts], device=device)
    audio = torch.tensor([len(row.prompt.given) for row in rows], device=device)
    there = [torch.arange(x.shape[1], device=device) < n[:, None] for x, n in ((phones, text), (given, audio))]
    x, mask, cache = (
        torch.cat([model.embed_text(phones, bert, positions), model.embed_audio(given)], 1),
        prefix_mask(*there),
        caches([*model.h.layers]),
    )
    for layer, keys_values in zip(model.h.layers, cache):
        x = layer(x, mask, cache=keys_values)
    last = torch.where(audio == 0, text, phones.shape[1] + audio) - 1
    return x[torch.arange(len(rows), device=device), last], cache, torch.cat(there, 1)
