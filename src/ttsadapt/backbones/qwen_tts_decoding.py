"""Speech tokens one by one, many requests at once, with transformers' key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.decoding import uniforms
from ttsadapt.backbones.ending import tell
from ttsadapt.errors import DataError

if TYPE_CHECKING:
    from ttsadapt.backbones.qwen_tts import QwenTTS


def generate(model: QwenTTS, requests: Sequence[Request]) -> list[Tensor]:
    """Speech tokens (S,) for each request; its draws come from its own generator and do not depend on the others."""
    device = next(model.parameters()).device
    rows = [Row(model, request) for request in requests]
    states, cache, mask = _prefill(model, rows, device)
    active = list(range(len(rows)))
    while True:
        chosen = [rows[i].choose(logits) for i, logits in zip(active, model.project(states).float().cpu())]
        going = [k for k, token in enumerate(chosen) if token is not None]
        if not going:
            return [torch.tensor(row.tokens, dtype=torch.long) for row in rows]
        if len(going) < len(active):
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            mask, active = mask[keep], [active[k] for k in going]
        token = torch.tensor([chosen[k] for k in going], device=device) + model.speech.start
        position = torch.tensor([rows[i].position for i in active], device=device) + model.offset
        mask = F.pad(mask, (0, 1), value=True)
        output = model.lm.model(
            inputs_embeds=model.lm.get_input_embeddings()(token[:, None]),
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        states = output.last_hidden_state[:, -1]


def _prefill(model: QwenTTS, rows: Sequence[Row], device: torch.device) -> tuple[Tensor, DynamicCache, Tensor]:
    """States of the last prompt positions (B, D), the cache, and which of its slots are filled (B, P).

    Prompts are padded on the right, so slots between a prompt and its first speech token stay empty and masked.
    """
    tokens = pad_sequence([row.prompt for row in rows], batch_first=True).to(device)
    positions = pad_sequence([row.positions[: len(row.prompt)] for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row.prompt) + model.offset for row in rows], device=device)
    speaker = torch.stack([row.request.speaker for row in rows]).to(device)
    mask = torch.arange(tokens.shape[1] + model.offset, device=device) < lengths[:, None]
    cache = DynamicCache(config=model.lm.config)
    output = model.lm.model(
        inputs_embeds=model.embedded(tokens, speaker),
        attention_mask=mask,
        position_ids=model.shifted(positions),
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state[torch.arange(len(rows), device=device), lengths - 1], cache, mask


class Row:
    """One utterance while it is generated."""

    def __init__(self, model: QwenTTS, request: Request) -> None:
        frontend = model.frontend
        self.codec, self.sampling, self.request, self.prompt = frontend.codec, model.sampling, request, frontend.prompt(request)
        self.tokens: list[int] = []
        """of the codec"""
        room = frontend.max_tokens - len(self.prompt) - 1
        if room < self.codec.levels:
            raise DataError(
                f"{request.id}: its {len(request.phones)} phones make {len(self.prompt)} tokens and leave no room for speech in "
                f"backbone.frontend.max_tokens={frontend.max_tokens}: split the text"
            )
        self.least, most = frontend.bounds(request)
        self.most = min(most, room)
        self.positions = frontend.positions(self.prompt, len(self.prompt) + self.most)
        self.uniform = uniforms(request.seed)

    @property
    def position(self) -> int:
        """Rotary position of the last token said, the soft prompt apart."""
        return int(self.positions[len(self.prompt) + len(self.tokens) - 1])

    def choose(self, logits: Tensor) -> int | None:
        """(tokens + 1,) logits, the end last -> the next token, or None at the end."""
        said, levels = len(self.tokens), self.codec.levels
        whole = said % levels == 0
        if whole and said + levels > self.most:
            tell([self.request], [said], [said])
            return None
        allowed = self.codec.allowed(said)
        scores = logits[allowed.start : allowed.stop]
        if whole and said >= self.least:
            scores = torch.cat([scores, logits[-1:]])
        before = [token - allowed.start for token in self.tokens[said % levels :: levels]]
        choice = self.sampling.draw(scores, self.uniform, before)
        if choice == len(allowed):
            return None
        self.tokens.append(allowed.start + choice)
        return self.tokens[-1]
