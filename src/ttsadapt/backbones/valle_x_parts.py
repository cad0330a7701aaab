"""The two decoders of VALL-E X (Zhang et al. 2023, arXiv 2303.03926), as Plachtaa/VALL-E-X builds them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ttsadapt.backbones.decoding import KeyValues
from ttsadapt.backbones.prefix_lm import Block, Norm, SinePosition, prefix_mask

LANGUAGES = 3
ENDS = 2
"""rows after the codes of the first level: end of speech, then begin of speech"""


class AdaptiveNorm(nn.Module):
    """w * LayerNorm(x) + b, with w and b read off a condition (VALL-E, section 4.2.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_layer = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():  # a new one begins near a plain norm
            self.project_layer.weight.mul_(0.1)
            self.project_layer.bias.copy_(torch.cat([torch.ones(width), torch.zeros(width)]))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, T, C), (C,) -> (B, T, C)"""
        weight, bias = self.project_layer(condition).chunk(2, -1)
        return weight * self.norm(x) + bias


class Decoder(nn.Module):
    """Blocks and the norm after them."""

    def __init__(self, count: int, width: int, heads: int, hidden: int, dropout: float, norm: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, hidden, dropout, norm=norm) for _ in range(count))
        self.norm = norm(width)

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor | None = None, caches: list[KeyValues] | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        each: Sequence[KeyValues | None] = caches or [None] * len(self.layers)
        for layer, cache in zip(self.layers, each):
            x = layer(x, mask, condition, cache)
        return self.norm(x, condition)


class Part(nn.Module):
    """What both decoders have: tables of phones and languages, positions of text and audio, each from 0."""

    def __init__(self, phones: int, width: int, text_dropout: float, dropout: float, trained_positions: bool) -> None:
        super().__init__()
        self.text_embedding = nn.Embedding(phones, width)
        self.language_embedding = nn.Embedding(LANGUAGES, width)
        self.text_position = SinePosition(width, text_dropout, trained_positions)
        self.audio_position = SinePosition(width, dropout, trained_positions)

    def text(self, phones: Tensor, languages: Tensor, positions: Tensor) -> Tensor:
        """(B, L) each -> (B, L, C)"""
        return self.text_position(self.text_embedding(phones) + self.language_embedding(languages), positions=positions)


class AR(Part):
    """First codes, one after the other: text sees text, audio sees text and its past."""

    def __init__(self, phones: int, codewords: int, width: int, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(phones, width, dropout, dropout, True)
        self.audio_embedding = nn.Embedding(codewords + ENDS, width)
        self.decoder = Decoder(layers, width, heads, hidden, dropout, Norm)
        self.predict_layer = nn.Linear(width, codewords + 1, bias=False)
        self.end, self.begin = codewords, codewords + 1

    def audio(self, codes: Tensor, start: int | Tensor = 0, seen: Tensor | None = None) -> Tensor:
        """(B, T) codes, `begin` first -> (B, T, C); of those not `seen` (B, T), the position alone."""
        embedded = self.audio_embedding(codes)
        return self.audio_position(embedded if seen is None else embedded * seen[..., None], start)

    def forward(self, text: Tensor, spoken: Tensor, audio: Tensor, heard: Tensor, caches: list[KeyValues] | None = None) -> Tensor:
        """Embedded text (B, L, C) and audio (B, T, C) with masks (B, L) and (B, T) -> states (B, L + T, C)."""
        return self.decoder(torch.cat([text, audio], 1), prefix_mask(spoken, heard), caches=caches)


class NAR(Part):
    """Codes of level `stage` from the levels before it: everything sees everything."""

    def __init__(self, phones: int, codewords: int, levels: int, width: int, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(phones, width, 0.0, dropout, False)
        rows = [codewords + 1, *[codewords] * (levels - 1)]
        self.audio_embeddings = nn.ModuleList(nn.Embedding(n, width) for n in rows)
        self.stage_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(levels - 1))
        self.decoder = Decoder(layers, width, heads, hidden, dropout, AdaptiveNorm)
        self.predict_layers = nn.ModuleList(nn.Linear(width, codewords, bias=False) for _ in range(levels - 1))
        self.levels, self.padding = levels, codewords
        self.tie()

    def tie(self) -> None:
        """The layer that predicts level j + 1 is the table of level j + 2: the released weights are off by one from the paper."""
        for predict, embedding in zip(self.predict_layers, list(self.audio_embeddings)[2:]):
            predict.weight = embedding.weight

    def audio(self, codes: Tensor, stage: int, known: Tensor | None = None) -> Tensor:
        """(B, T, Q) -> (B, T, C): the sum of the levels before `stage`; of all levels where `known` (B, T)."""
        total = sum(self.audio_embeddings[level](codes[..., level]) for level in range(stage))
        if known is not None:
            later = sum(self.audio_embeddings[level](codes[..., level]) for level in range(stage, self.levels))
            total = total + later * known[..., None]
        return self.audio_position(total)

    def forward(self, text: Tensor, spoken: Tensor, audio: Tensor, heard: Tensor, stage: int) -> Tensor:
        """Embedded text (B, L, C) and audio (B, T, C) with masks (B, L) and (B, T) -> states (B, L + T, C)."""
        there = torch.cat([spoken, heard], 1)
        condition = self.stage_embeddings[stage - 1].get_parameter("weight")[0]
        return self.decoder(torch.cat([text, audio], 1), there[:, None, None], condition)
