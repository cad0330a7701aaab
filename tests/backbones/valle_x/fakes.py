"""A codec without sound and a frontend around it."""

from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.valle_x import VALLEX
from ttsadapt.backbones.valle_x_frontend import VALLEXFrontend
from ttsadapt.text.vallex import CorpusText


class Codec:
    """Codes read off the loudness of blocks of samples, level by level; samples read off the codes."""

    def __init__(self, levels: int = 8, codewords: int = 1024, sample_rate: int = 16000, hop: int = 320) -> None:
        self.levels, self.codewords, self.sample_rate, self.hop = levels, codewords, sample_rate, hop
        self.rate = levels * sample_rate / hop

    def fit(self, recordings: Any, phones: Any = None) -> None:
        self.heard = sum(1 for _ in recordings)

    def codes(self, audio: Tensor) -> Tensor:
        blocks = audio[: len(audio) // self.hop * self.hop].view(-1, self.hop)
        values = (blocks.abs().mean(1, keepdim=True) * torch.arange(1, self.levels + 1) * 1e4).long()
        return (values + torch.arange(len(blocks))[:, None] * 3) % self.codewords

    def decode_codes(self, codes: Tensor) -> Tensor:
        return (codes[:, 0].float() / self.codewords).repeat_interleave(self.hop)

    def embedding(self) -> Tensor:
        """Neighbouring codes sound alike."""
        place = torch.arange(self.codewords)[:, None] / self.codewords
        wave = torch.cat([torch.cos(3 * place), torch.sin(3 * place)], 1)
        return torch.block_diag(*[wave] * self.levels)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        self.restored = True


SIZES = {"width": 32, "layers": 2, "heads": 2, "hidden": 48, "phones": 40, "codewords": 12, "levels": 4, "dropout": 0.1}


def plain_frontend(levels: int = 8, codewords: int = 1024, **settings: Any) -> VALLEXFrontend:
    return VALLEXFrontend(Codec(levels, codewords), CorpusText(), **settings)


def model_of(frontend: VALLEXFrontend, **settings: Any) -> VALLEX:
    torch.manual_seed(0)
    model = VALLEX(frontend, **SIZES | settings).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or mask shows
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
