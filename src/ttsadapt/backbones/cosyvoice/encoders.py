"""From vectors of speech tokens to the rate of the mel: what stands before the velocity estimators. Everything is (B, T, C).

Weights are named as the authors name them; `mask` is (B, T) bool, true where there is a token or a frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.cosyvoice.conformer import Block, InputLayer, chunk_mask, through
from ttsadapt.backbones.cosyvoice.unet_layers import MaskedGroupNorm


class LookAhead(nn.Module):
    """A convolution over the next tokens and a causal one of three, added to the input (CosyVoice 2, section 2.3)."""

    def __init__(self, width: int, hidden: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.conv1, self.conv2 = nn.Conv1d(width, hidden, ahead + 1), nn.Conv1d(hidden, width, 3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, T, C) -> the same; `context` (B, ahead, C) is what follows where x is not the end of the utterance."""
        ahead = F.pad(x, (0, 0, 0, self.ahead)) if context is None else torch.cat([x, context], 1)
        y = F.leaky_relu(self.conv1(ahead.mT))
        return x + self.conv2(F.pad(y, (2, 0))).mT


class UpsampleEncoder(nn.Module):
    """CosyVoice 2's token encoder: input layer, look-ahead, blocks, twice the rate, blocks (CosyVoice 2, section 2.3)."""

    def __init__(
        self,
        inputs: int,
        width: int,
        heads: int,
        hidden: int,
        blocks: int,
        up_blocks: int,
        ahead: int,
        chunk: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        """`chunk`: tokens that stream at once."""
        super().__init__()
        self.chunk = chunk
        self.embed, self.up_embed = InputLayer(inputs, width, dropout), InputLayer(width, width, dropout)
        self.pre_lookahead_layer = LookAhead(width, width, ahead)
        self.encoders = nn.ModuleList(Block(width, heads, hidden, dropout, attention_dropout) for _ in range(blocks))
        self.up_layer = nn.ModuleDict({"conv": nn.Conv1d(width, width, 5)})
        self.up_encoders = nn.ModuleList(Block(width, heads, hidden, dropout, attention_dropout) for _ in range(up_blocks))
        self.after_norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor, mask: Tensor, streaming: Tensor, context: Tensor | None = None, leaky: bool = False) -> Tensor:
        """(B, S, inputs) -> (B, 2 S, width). `leaky`: the look-ahead sees what padding has become, as in the authors' code."""
        x = self.embed(x)
        x = self.pre_lookahead_layer(x if leaky else x * mask[..., None], None if context is None else self.embed(context))
        x = through(self.encoders, x, chunk_mask(mask, self.chunk, streaming))
        x = self.up_layer["conv"](F.pad(x.repeat_interleave(2, 1).mT, (4, 0))).mT
        x = self.up_embed(x)
        x = through(self.up_encoders, x, chunk_mask(mask.repeat_interleave(2, 1), 2 * self.chunk, streaming))
        return self.after_norm(x)


class LengthRegulator(nn.Module):
    """CosyVoice 1: token vectors stretched linearly to the frames of the mel, then convolutions of three."""

    def __init__(self, n_mels: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Conv1d(n_mels, n_mels, 3, padding=1), MaskedGroupNorm(1, n_mels), nn.Mish()]
        self.model = nn.ModuleList([*parts, nn.Conv1d(n_mels, n_mels, 1)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C), already stretched; zero at padding."""
        real = mask[..., None]
        for part in self.model:
            if isinstance(part, MaskedGroupNorm):
                x = part(x, mask)
            elif isinstance(part, nn.Mish):
                x = part(x)
            else:
                x = part((x if self._leaky else x * real).mT).mT
        return x * real

    @property
    def _leaky(self) -> bool:
        return any(part.leaky for part in self.model if isinstance(part, MaskedGroupNorm))


def stretched(x: Tensor, lengths: Tensor, wanted: Tensor, frames: int) -> Tensor:
    """(B, S, C) of `lengths` real tokens -> (B, frames, C): linear interpolation of each row to its own `wanted` frames.

    The centre of the first frame lies where half a frame lies within the tokens, as in `F.interpolate` without aligned corners.
    """
    rate = (lengths / wanted.clamp_min(1))[:, None]
    last = (lengths - 1)[:, None]
    at = ((torch.arange(frames, device=x.device) + 0.5) * rate - 0.5).clamp_min(0)  # (B, frames)
    below = at.floor().long().minimum(last)
    above = (below + 1).minimum(last)
    weight = (at - below).clamp(0, 1)[..., None].to(x.dtype)
    return _taken(x, below) * (1 - weight) + _taken(x, above) * weight


def stretched_in_parts(x: Tensor, frames: int, rate: float, edge: int = 20) -> Tensor:
    """(1, S, C) -> (1, frames, C): head, middle and tail apart, so that in streaming the ends of a chunk do not move.

    `rate`: frames a token; `edge`: tokens in head and tail.
    """
    if x.shape[1] <= 2 * edge:
        return _interpolated(x, frames)
    end = int(edge * rate)
    middle = _interpolated(x[:, edge:-edge], frames - 2 * end)
    return torch.cat([_interpolated(x[:, :edge], end), middle, _interpolated(x[:, -edge:], end)], 1)


def _interpolated(x: Tensor, frames: int) -> Tensor:
    return F.interpolate(x.mT, size=frames, mode="linear").mT


def _taken(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
