"""Drawing the next token, and the key-value cache: what all autoregressive families share.

Every request brings its own uniform numbers, so its draws depend neither on the others in its batch nor on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsadapt.backbones.base import Backbone, Request, distinct

SHARPEST = 1e-3
"""temperatures below this pick the likeliest token"""


@dataclass(frozen=True)
class Sampling:
    """Repetition penalty, then top-p and top-k on the probabilities, then temperature on what is left."""

    temperature: float = 1.0
    """0: greedy"""
    top_k: int = 0
    """0: all tokens"""
    top_p: float = 1.0
    """the fewest tokens that together reach this share, the one that crosses it included"""
    repetition_penalty: float = 1.0
    """divides positive and multiplies negative scores of tokens already said (Keskar et al. 2019, section 4.1)"""
    window: int = 0
    """repetition-aware sampling (VALL-E 2, section 3.3): how many of the last tokens are looked at; 0: none"""
    share: float = 0.1
    """... and which share of them makes a token one too many: it is banned and another drawn from all that remain"""

    def draw(self, scores: Tensor, uniform: Callable[[], float], said: Sequence[int] = ()) -> int:
        """(V,) logits -> a token. `uniform()`: the request's next number in [0, 1). `said`: tokens so far, on `scores`' scale."""
        if self.repetition_penalty != 1.0 and said:
            scores = self._penalised(scores, said)
        if self.temperature < SHARPEST:
            return int(scores.argmax())
        token = self._nucleus(scores, uniform())
        if self.window and sum(t == token for t in said[-self.window :]) >= self.window * self.share:
            rest = scores.clone()
            rest[token] = -torch.inf
            token = inverse(rest.double().softmax(-1), uniform())
        return token

    def _penalised(self, scores: Tensor, said: Sequence[int]) -> Tensor:
        index = torch.tensor(sorted({t for t in said if 0 <= t < len(scores)}), device=scores.device, dtype=torch.long)
        repeated = scores[index]
        penalised = torch.where(repeated < 0, repeated * self.repetition_penalty, repeated / self.repetition_penalty)
        return scores.index_copy(0, index, penalised)

    def nucleus(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(V,) logits -> probabilities, likeliest first and zero where `top_p` or `top_k` cut, and the tokens they belong to."""
        likely, index = scores.double().softmax(-1).sort(descending=True, stable=True)
        kept = likely.cumsum(0) - likely < self.top_p
        if self.top_k:
            kept &= torch.arange(len(likely), device=likely.device) < self.top_k
        kept[0] = True
        return likely * kept, index

    def _nucleus(self, scores: Tensor, uniform: float) -> int:
        kept, index = self.nucleus(scores)
        return int(index[inverse(kept ** (1 / self.temperature), uniform)])


def inverse(weights: Tensor, uniform: float) -> int:
    """(N,) weights of any sum -> the index at which their running share passes `uniform`."""
    running = weights.cumsum(0)
    return int((running <= uniform * running[-1]).sum().clamp_max(int(weights.nonzero()[-1])))


def uniforms(seed: int) -> Callable[[], float]:
    """A request's stream of numbers in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: float(torch.rand((), generator=generator))


def in_batches(
    model: Backbone,
    requests: Sequence[Request],
    size: int,
    generate: Callable[[Sequence[Request]], Sequence[Tensor]],
    sound: Callable[[Tensor, Request], Tensor],
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Waveforms of `requests` in their order, said `size` at a time, like lengths together: `sound` makes audio of what `generate` says.

    Where somebody listens to who is speaking, a batch is in one voice: its rows may then end, or be doubled for guidance, without
    anybody having to keep count of whose they are.
    """
    audio: dict[int, Tensor] = {}
    for part in _parts(requests, size, apart=bool(model.listeners)):
        model.announce([requests[i] for i in part])
        for i, said in zip(part, generate([requests[i] for i in part])):
            audio[i] = sound(said, requests[i])
        if progress:
            progress(len(part))
    return [audio[i] for i in range(len(requests))]


def _parts(requests: Sequence[Request], size: int, apart: bool) -> list[list[int]]:
    """Numbers of the requests of each batch, like lengths together; `apart`: only those in the same voice."""
    groups: dict[int, list[int]] = {}
    voices = distinct(torch.stack([r.speaker for r in requests]), [r.voice for r in requests])["voice_index"].tolist() if apart else ()
    for i in sorted(range(len(requests)), key=lambda i: len(requests[i].phones)):
        groups.setdefault(voices[i] if apart else 0, []).append(i)
    return [mine[start : start + size] for mine in groups.values() for start in range(0, len(mine), size)]


def least_risk(logits: Tensor, table: Tensor) -> Tensor:
    """(B, K) logits of codewords that `table` (K, D) holds -> (B,) the codeword nearest to the expected one.

    Minimum Bayes risk under the squared error (Bickel & Doksum 2015, section 3.2), as a regression would say it: where nothing is
    known a codeword near the mean, and not any of those that are equally likely.
    """
    return torch.cdist(logits.softmax(-1) @ table, table).argmin(-1)


class KeyValues:
    """Keys and values (B, H, S, C) of one attention layer, in a buffer that doubles: a step costs what its attention costs."""

    def __init__(self) -> None:
        self.length = 0
        self._keys = self._values = torch.empty(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, N, C) new ones -> all so far (views: valid until the next call)."""
        wanted = self.length + keys.shape[2]
        if self._keys.dim() != 4:
            self._keys, self._values = self._room(keys, 2 * wanted), self._room(values, 2 * wanted)
        elif wanted > self._keys.shape[2]:
            grown = self._room(keys, 2 * wanted), self._room(values, 2 * wanted)
            for old, new in zip((self._keys, self._values), grown):
                new[:, :, : self.length] = old[:, :, : self.length]
            self._keys, self._values = grown
        self._keys[:, :, self.length : wanted], self._values[:, :, self.length : wanted] = keys, values
        self.length = wanted
        return self._keys[:, :, :wanted], self._values[:, :, :wanted]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        self._keys, self._values = self._keys[rows], self._values[rows]

    @staticmethod
    def _room(like: Tensor, size: int) -> Tensor:
        batch, heads, _, width = like.shape
        return like.new_empty(batch, heads, size, width)
