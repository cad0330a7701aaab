"""Decoding of VALL-E X: first codes are sampled with a key-value cache, the other levels are the likeliest, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.backbones.decoding import least_risk, uniforms
from ttsadapt.backbones.frames import level_tables
from ttsadapt.backbones.parts import evaluating, sequence_mask
from ttsadapt.backbones.prefix_lm import caches

if TYPE_CHECKING:
    from ttsadapt.backbones.valle_x import VALLEX


@dataclass(frozen=True)
class Prompt:
    """One utterance to be generated."""

    phones: Tensor
    """(L,) rows of the text table: what the reference says, then what is to be said"""
    languages: Tensor
    """(L,) rows of the language table"""
    positions: Tensor
    """(L,) of the phones"""
    codes: Tensor
    """(P, Q) of the reference; P may be 0"""
    least: int
    most: int
    """bounds of the frames to be generated"""
    seed: int = 0


class Row:
    """One utterance while its first codes are generated."""

    def __init__(self, model: "VALLEX", prompt: Prompt) -> None:
        self.prompt, self.end, self.sampling = prompt, model.ar.end, model.sampling
        self.uniform = uniforms(prompt.seed)
        self.before: list[int] = prompt.codes[:, 0].tolist()
        self.said: list[int] = []

    def choose(self, logits: Tensor) -> int | None:
        """(codes and end,) -> the next code, or None at the end."""
        if len(self.said) >= self.prompt.most:
            return None
        if len(self.said) < self.prompt.least:
            logits = logits[: self.end]
        code = self.sampling.draw(logits, self.uniform, self.before + self.said)
        if code == self.end:
            return None
        self.said.append(code)
        return code


def generate(model: "VALLEX", prompts: Sequence[Prompt]) -> list[Tensor]:
    """(S, Q) codes for each prompt, without those of its reference."""
    with evaluating(model), torch.inference_mode():
        device = next(model.parameters()).device
        phones = pad_sequence([p.phones for p in prompts], batch_first=True).to(device)
        languages = pad_sequence([p.languages for p in prompts], batch_first=True).to(device)
        positions = pad_sequence([p.positions for p in prompts], batch_first=True).to(device)
        spoken = sequence_mask(torch.tensor([len(p.phones) for p in prompts], device=device), phones.shape[1])
        text = (phones, languages, positions)
        first = _first_level(model, prompts, text, spoken)
        codes = _later_levels(model, prompts, first, text, spoken)
    return [c.clone() for c in codes]


def _first_level(model: "VALLEX", prompts: Sequence[Prompt], text: Sequence[Tensor], spoken: Tensor) -> list[Tensor]:
    """(S,) first codes of each; `text`: phones, languages and positions (B, L).

    References are padded on the right, so slots between one and what follows it stay masked.
    """
    ar, device = model.ar, spoken.device
    rows, memory = [Row(model, p) for p in prompts], caches(model.ar.decoder.layers)
    said = pad_sequence([torch.tensor([ar.begin, *row.before]) for row in rows], batch_first=True).to(device)
    position = torch.tensor([len(row.before) + 1 for row in rows], device=device)
    heard = sequence_mask(position, said.shape[1])
    states = ar(ar.text(*text), spoken, ar.audio(said), heard, memory)
    states = states[torch.arange(len(rows), device=device), spoken.shape[1] + position - 1]  # (B, C)
    seen, active = torch.cat([spoken, heard], 1), list(range(len(rows)))
    while True:
        chosen = [rows[i].choose(logits) for i, logits in zip(active, ar.predict_layer(states).float().cpu())]
        going = [k for k, code in enumerate(chosen) if code is not None]
        if not going:
            return [torch.tensor(row.said, dtype=torch.long) for row in rows]
        if len(going) < len(active):
            keep = torch.tensor(going, device=device)
            for cache in memory:
                cache.select(keep)
            seen, position, active = seen[keep], position[keep], [active[k] for k in going]
        code = torch.tensor([[chosen[k]] for k in going], device=device)
        seen = F.pad(seen, (0, 1), value=True)
        states = ar.decoder(ar.audio(code, position), seen[:, None, None], caches=memory)[:, 0]
        position = position + 1


def _later_levels(
    model: "VALLEX", prompts: Sequence[Prompt], first: Sequence[Tensor], text: Sequence[Tensor], spoken: Tensor
) -> list[Tensor]:
    """(S, Q) of each: references are known at all levels, each stage adds the likeliest (or safest) code of one level."""
    nar, device = model.nar, spoken.device
    own = [F.pad(codes[:, None], (0, nar.levels - 1)) for codes in first]  # (S, Q)
    whole = [torch.cat([p.codes, codes]) for p, codes in zip(prompts, own)]
    codes = pad_sequence(whole, batch_first=True).to(device)
    heard = sequence_mask(torch.tensor([len(w) for w in whole], device=device), codes.shape[1])
    known = sequence_mask(torch.tensor([len(p.codes) for p in prompts], device=device), codes.shape[1])
    told = nar.text(*text)
    tables = level_tables(model.frontend.codec, device) if model.minimum_risk else None
    for stage in range(1, nar.levels):
        states = nar(told, spoken, nar.audio(codes, stage, known), heard, stage)[:, told.shape[1] :]
        logits = nar.predict_layers[stage - 1](states).float()
        chosen = least_risk(logits, tables[stage]) if tables is not None else logits.argmax(-1)
        codes[..., stage] = torch.where(known, codes[..., stage], chosen)
    return [row[len(p.codes) : len(w)].cpu() for row, p, w in zip(codes, prompts, whole)]
