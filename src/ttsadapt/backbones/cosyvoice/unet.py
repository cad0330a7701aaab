"""The velocity estimators of CosyVoice 1 and 2: a 1-d U-Net of residual convolutions and Transformer blocks (Matcha-TTS, section 3.2).

CosyVoice 1 halves the rate once and looks both ways; CosyVoice 2 keeps the rate and its convolutions look back only. Inside,
everything is (B, T, C), a mask (B, T) bool; weights are named as the authors name them.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.cosyvoice.conformer import chunk_mask
from ttsadapt.backbones.cosyvoice.estimator import Estimator, time_sines


class TimeEmbedding(nn.Module):
    """Flow time in [0, 1] -> a vector: sinusoids of 1000 t, then two linears."""

    def __init__(self, sines: int, width: int) -> None:
        super().__init__()
        self.sines = sines
        self.linear_1, self.linear_2 = nn.Linear(sines, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, width)"""
        return self.linear_2(F.silu(self.linear_1(time_sines(time, self.sines).to(self.linear_1.weight.dtype))))


class MaskedGroupNorm(nn.Module):
    """Group normalisation of (B, T, C) over real positions, so that an utterance comes out the same in any company.

    `leaky`: over padding too, as the authors' code does.
    """

    leaky = False

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.leaky:
            return F.group_norm(x.mT, self.groups, self.weight, self.bias).mT
        real = mask[:, :, None, None]
        grouped = x.unflatten(-1, (self.groups, -1))  # (B, T, G, C / G)
        count = (mask.sum(1) * grouped.shape[-1])[:, None, None, None].clamp_min(1)
        centred = (grouped - (grouped * real).sum((1, 3), keepdim=True) / count) * real
        variance = centred.square().sum((1, 3), keepdim=True) / count
        return (centred * (variance + 1e-5).rsqrt()).flatten(2) * self.weight + self.bias


class ConvBlock(nn.Module):
    """Convolution of three, norm, Mish; zero at padding. Causal: it looks back only, and a LayerNorm takes the GroupNorm's place."""

    def __init__(self, inputs: int, width: int, causal: bool, groups: int = 8) -> None:
        super().__init__()
        self.causal = causal
        norm = nn.LayerNorm(width) if causal else MaskedGroupNorm(groups, width)
        # Theirs is a sequence of conv, [transpose,] norm, ...: the names are the places in it.
        self.block = nn.ModuleDict({"0": nn.Conv1d(inputs, width, 3), "2" if causal else "1": norm})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None]
        x = convolved(self.block["0"], x * real, self.causal)
        x = self.block["2"](x) if self.causal else self.block["1"](x, mask)
        return F.mish(x) * real


def convolved(conv: nn.Module, x: Tensor, causal: bool) -> Tensor:
    """(B, T, C) through a convolution of three: padded here, so that an adapter around it sees the same input as it."""
    return conv(F.pad(x.mT, (2, 0) if causal else (1, 1))).mT


class ResidualBlock(nn.Module):
    """Two convolution blocks around an addition of the flow time, and a pointwise shortcut."""

    def __init__(self, inputs: int, width: int, time_width: int, causal: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_width, width))
        self.block1, self.block2 = ConvBlock(inputs, width, causal), ConvBlock(width, width, causal)
        self.res_conv = nn.Conv1d(inputs, width, 1)

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        y = self.block1(x, mask) + self.mlp(time)[:, None]
        return self.block2(y, mask) + self.res_conv((x * mask[..., None]).mT).mT


class Attention(nn.Module):
    """Self-attention of `heads` times `head` channels; no positions: the convolutions know where they are."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_k = nn.Linear(width, heads * head, bias=False)
        self.to_v = nn.Linear(width, heads * head, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head, width)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class GELULinear(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(GELULinear(width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, head: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1, self.ff = Attention(width, heads, head), FeedForward(width, 4 * width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attn1(self.norm1(x), mask))
        return x + self.ff(self.norm3(x))


class Stage(nn.ModuleList):
    """[residual block, Transformer blocks, what leads to the next stage (not in the middle)]."""

    def __init__(self, residual: nn.Module, transformers: Sequence[nn.Module], onward: nn.Module | None = None) -> None:
        super().__init__([residual, nn.ModuleList(transformers), *([onward] if onward is not None else [])])

    @property
    def onward(self) -> nn.Module:
        return self[2]

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor, time: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, width); `seen` (B, 1 or T, T) for the attention."""
        x = self[0](x, mask, time)
        for block in self[1].children():
            x = block(x, seen)
        return x


class Resample(nn.Module):
    """Half or double the rate."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(width, width, 4, 2, 1) if up else nn.Conv1d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mT).mT


class UNet(Estimator):
    """(noisy mel, mu, voice, prompt) stacked along channels -> velocity."""

    def __init__(
        self,
        inputs: int,
        n_mels: int,
        channels: Sequence[int],
        middle: int,
        transformers: int,
        heads: int,
        head: int,
        causal: bool,
        chunk: int,
        dropout: float = 0.0,
    ) -> None:
        """`channels`: width of every stage down; `transformers`: blocks a stage; `chunk`: frames that stream at once."""
        super().__init__()
        self.causal, self.chunk = causal, chunk
        width_of_time = 4 * channels[0]
        self.time_mlp = TimeEmbedding(inputs, width_of_time)

        def stage(before: int, width: int, onward: nn.Module | None = None) -> Stage:
            blocks = [TransformerBlock(width, heads, head, dropout) for _ in range(transformers)]
            return Stage(ResidualBlock(before, width, width_of_time, causal), blocks, onward)

        def onward(width: int, last: bool, up: bool) -> nn.Module:
            return nn.Conv1d(width, width, 3) if last else Resample(width, up)

        last = len(channels) - 1
        befores = [inputs, *channels[:-1]]
        self.down_blocks = nn.ModuleList(stage(b, c, onward(c, i == last, False)) for i, (b, c) in enumerate(zip(befores, channels)))
        self.mid_blocks = nn.ModuleList(stage(channels[-1], channels[-1]) for _ in range(middle))
        ups = [*channels[::-1], channels[0]]
        self.up_blocks = nn.ModuleList(stage(2 * ups[i], ups[i + 1], onward(ups[i + 1], i == last, True)) for i in range(len(channels)))
        self.final_block = ConvBlock(channels[0], channels[0], causal)
        self.final_proj = nn.Conv1d(channels[0], n_mels, 1)

    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, time: Tensor, voice: Tensor, prompt: Tensor, streaming: Tensor) -> Tensor:
        time = self.time_mlp(time)
        x = torch.cat([x, mu, voice[:, None].expand(-1, x.shape[1], -1), prompt], -1)
        masks, skips = [mask], []
        for stage in cast(Iterable[Stage], self.down_blocks):
            x = stage(x, masks[-1], self._seen(masks[-1], streaming), time)
            skips.append(x)
            x = self._onward(stage.onward, x, masks[-1])
            masks.append(masks[-1][:, ::2] if isinstance(stage.onward, Resample) else masks[-1])
        masks.pop()
        for stage in cast(Iterable[Stage], self.mid_blocks):
            x = stage(x, masks[-1], self._seen(masks[-1], streaming), time)
        for stage in cast(Iterable[Stage], self.up_blocks):
            here, skip = masks.pop(), skips.pop()
            x = stage(torch.cat([x[:, : skip.shape[1]], skip], -1), here, self._seen(here, streaming), time)
            x = self._onward(stage.onward, x, here)
        x = self.final_block(x, mask)
        return self.final_proj((x * mask[..., None]).mT).mT * mask[..., None]

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages at the lowest rate, in order: all of them where the rate never changes."""
        return [self.down_blocks[-1], *self.mid_blocks, self.up_blocks[0]]

    def block_mask(self, mask: Tensor) -> Tensor:
        """(B, T) of the mel -> that of `blocks`."""
        return mask[:, :: 2 ** (len(self.down_blocks) - 1)]

    def _seen(self, mask: Tensor, streaming: Tensor) -> Tensor:
        return chunk_mask(mask, self.chunk, streaming) if self.causal else mask[:, None]

    def _onward(self, layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        return layer(x) if isinstance(layer, Resample) else convolved(layer, x, self.causal)
