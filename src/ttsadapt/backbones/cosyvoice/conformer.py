"""Transformer blocks with relative positions (Dai et al. 2019, section 3.3, in ESPnet's form): CosyVoice 1's language model and
text encoder, and the token encoders of the flows of CosyVoice 1 and 2. Weights are named as the authors name them.

Masks are bool and broadcast to (B, Q, K), true where a query may look at a key.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.decoding import KeyValues
from ttsadapt.backbones.prefix_lm import interleaved


class RelativeCache(KeyValues):
    """Keys and values of one block, and what its `linear_pos` makes of the distances so far."""

    def __init__(self) -> None:
        super().__init__()
        self.distances = KeyValues()


class RelativeAttention(nn.Module):
    """Self-attention whose scores add a term for the distance between query and key."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor, cache: RelativeCache | None = None) -> Tensor:
        """(B, Q, C) -> the same; `positions` (Q + K - 1, C) from `relative_positions`, where K counts what the cache holds too."""
        q, k, v = (self._split(layer(x)) for layer in (self.linear_q, self.linear_k, self.linear_v))
        if cache is not None:
            k, v = cache.append(k, v)
        scores = self._by_distance(q + self.pos_bias_v[:, None], positions, k.shape[2], cache) * q.shape[-1] ** -0.5
        y = F.scaled_dot_product_attention(
            q + self.pos_bias_u[:, None],
            k,
            v,
            attn_mask=scores.masked_fill(~mask[:, None], -math.inf),
            dropout_p=self.dropout if self.training else 0.0,
        )  # (B, H, Q, C / H)
        return self.linear_out(y.transpose(1, 2).flatten(2))

    def _by_distance(self, q: Tensor, positions: Tensor, keys: int, cache: RelativeCache | None) -> Tensor:
        """(B, H, Q, keys): with one query and a cache, only distances that it has not yet seen go through the linear."""
        if cache is None or q.shape[2] > 1:
            return by_distance(q @ self._split(self.linear_pos(positions)[None]).mT, keys)
        new = positions[: keys - cache.distances.length].flip(0)  # from the nearest that is not yet known to the farthest
        p = self._split(self.linear_pos(new)[None])
        return (q @ cache.distances.append(p, p)[0].mT).flip(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.activation = nn.Dropout(dropout), nn.ReLU() if relu else nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class Block(nn.Module):
    """Norm, attention, residual; norm, feed-forward, residual. `legacy`: the language model's names of the norms, and ReLU."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float, legacy: bool = False) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(width, heads, attention_dropout)
        self.feed_forward = FeedForward(width, hidden, dropout, relu=legacy)
        self.dropout = nn.Dropout(dropout)
        self.norms = ("norm1", "norm2") if legacy else ("norm_mha", "norm_ff")
        for name in self.norms:
            self.add_module(name, nn.LayerNorm(width, eps=1e-12))

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor, cache: RelativeCache | None = None) -> Tensor:
        before_attention, before_ff = (self.get_submodule(name) for name in self.norms)
        x = x + self.dropout(self.self_attn(before_attention(x), mask, positions, cache))
        return x + self.dropout(self.feed_forward(before_ff(x)))


class InputLayer(nn.Module):
    """Linear, LayerNorm (`legacy`: and ReLU), scaled by the root of the width."""

    def __init__(self, inputs: int, width: int, dropout: float, legacy: bool = False) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width, eps=1e-5), nn.Dropout(dropout))
        if legacy:
            self.out.append(nn.ReLU())
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * self.scale


class ConformerEncoder(nn.Module):
    """Input layer, blocks, final norm; of a Conformer it has neither the convolutions nor the half steps."""

    def __init__(
        self,
        inputs: int,
        width: int,
        heads: int,
        hidden: int,
        blocks: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        legacy: bool = False,
    ) -> None:
        """`legacy`: the layout of CosyVoice 1's language model (names of the norms, ReLU), else that of its text and token encoders."""
        super().__init__()
        self.embed = InputLayer(inputs, width, dropout, legacy)
        self.encoders = nn.ModuleList(Block(width, heads, hidden, dropout, attention_dropout, legacy) for _ in range(blocks))
        self.after_norm = nn.LayerNorm(width, eps=1e-5)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.encoders)

    def caches(self) -> list[RelativeCache]:
        """What `forward` needs to go on from what it was last given."""
        return [RelativeCache() for _ in self.encoders]

    def forward(self, x: Tensor, mask: Tensor, caches: Sequence[RelativeCache] | None = None) -> Tensor:
        """(B, T, inputs) -> (B, T, width). With caches, x are the T positions after the S that they hold: mask (B, 1 or T, S + T)."""
        return self.after_norm(through(self.encoders, self.embed(x), mask, caches))


def through(blocks: nn.ModuleList, x: Tensor, mask: Tensor, caches: Sequence[RelativeCache] | None = None) -> Tensor:
    """A chain of `Block`s over (B, Q, C); the positions are made once for all of them."""
    keys = x.shape[1] + (caches[0].length if caches else 0)
    positions = relative_positions(x.shape[1], keys, x.shape[2], x.device).to(x.dtype)
    for i, block in enumerate(blocks):
        x = block(x, mask, positions, caches[i] if caches else None)
    return x


def relative_positions(queries: int, keys: int, width: int, device: torch.device | None = None) -> Tensor:
    """(queries + keys - 1, width): sinusoids of the distances keys - 1, ..., 0, ..., -(queries - 1).

    The queries are the last ones of the keys' positions.
    """
    return interleaved(torch.arange(keys - 1, -queries, -1, device=device), width)


def by_distance(scores: Tensor, keys: int) -> Tensor:
    """(..., Q, Q + K - 1) scores of distances, as ordered by `relative_positions` -> (..., Q, K) scores of keys.

    Entry (q, k) is column Q - 1 - q + k: each row begins one column earlier than the one above, which padding with one column
    and reading on in rows of another length does without a gather (Dai et al. 2019, appendix B).
    """
    *batch, queries, distances = scores.shape
    padded = F.pad(scores, (1, 0)).reshape(*batch, distances + 1, queries)
    return padded[..., 1:, :].reshape(*batch, queries, distances)[..., :keys]


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """(1, queries, keys): the queries are the last of the keys' positions, none looks ahead."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None]


def chunk_mask(mask: Tensor, chunk: int, streaming: Tensor) -> Tensor:
    """(B, T) real positions, (B,) or () bool -> (B, T, T): all real keys, or, where streaming, those up to the end of the query's chunk.

    A chunk is `chunk` positions. What streams is decided on the device, so that nothing is read back from it.
    """
    at = torch.arange(mask.shape[1], device=mask.device)
    heard = at < (at[:, None] // chunk + 1) * chunk  # (T, T)
    return mask[:, None] & (heard | ~streaming.reshape(-1, 1, 1))
