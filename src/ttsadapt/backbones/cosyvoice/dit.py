"""The velocity estimator of CosyVoice 3: a Transformer whose norms are set by the flow time (DiT, Peebles & Xie 2023; F5-TTS).

Weights are named as the authors name them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones.base import Slot
from ttsadapt.backbones.cosyvoice.conformer import chunk_mask
from ttsadapt.backbones.cosyvoice.estimator import Estimator, time_sines

KERNEL = 31
"""positions that each of the two convolutions in front of the blocks sees, all in the past"""


class TimeEmbedding(nn.Module):
    def __init__(self, width: int, sines: int = 256) -> None:
        super().__init__()
        self.sines = sines
        self.time_mlp = nn.Sequential(nn.Linear(sines, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, C)"""
        return self.time_mlp(time_sines(time, self.sines).to(next(self.parameters()).dtype))


class PositionConvs(nn.Module):
    """Two grouped causal convolutions: the only absolute sense of place that seven of eight heads have."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(width, width, KERNEL, groups=groups), nn.Mish())
        self.conv2 = nn.Sequential(nn.Conv1d(width, width, KERNEL, groups=groups), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = conv(F.pad(x.mT, (KERNEL - 1, 0))).mT
        return x


class InputEmbedding(nn.Module):
    def __init__(self, inputs: int, width: int, groups: int) -> None:
        super().__init__()
        self.proj, self.conv_pos_embed = nn.Linear(inputs, width), PositionConvs(width, groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return x + self.conv_pos_embed(x)


class Rotary(nn.Module):
    """Rotary positions of the first `size` channels, pairs of neighbours turned together (Su et al. 2021).

    The authors apply them before the heads are split, so that only the first head knows positions. Weights were trained so.
    """

    inv_freq: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, size, 2).float() / size))  # it is in the authors' files

    def table(self, length: int) -> Tensor:
        """(2, length, size): cosines and sines."""
        angles = torch.arange(length, device=self.inv_freq.device).float()[:, None] * self.inv_freq
        return torch.stack([angles.cos(), angles.sin()]).repeat_interleave(2, -1)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """(B, T, C) -> the same."""
        turned, rest = x[..., : self.size], x[..., self.size :]
        even, odd = turned.unflatten(-1, (-1, 2)).unbind(-1)
        across = torch.stack([-odd, even], -1).flatten(-2)
        cosine, sine = table.to(x.dtype)
        return torch.cat([turned * cosine + across * sine, rest], -1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, heads * head) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(heads * head, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, seen: Tensor, rotary: Rotary, table: Tensor) -> Tensor:
        q, k, v = rotary(self.to_q(x), table), rotary(self.to_k(x), table), self.to_v(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        return self.to_out(y.transpose(1, 2).flatten(2))


class AdaptiveNorm(nn.Module):
    """LayerNorm without weights of its own; `parts` vectors are read off the flow time."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts, self.linear = parts, nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)  # DiT, section 3.2: at first every block passes its input on
        nn.init.zeros_(self.linear.bias)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """(B, C) -> parts of (B, 1, C)"""
        return self.linear(F.silu(time))[:, None].chunk(self.parts, -1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        expand = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"))
        self.ff = nn.Sequential(expand, nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class Block(nn.Module):
    """Attention and feed-forward, each shifted, scaled and gated by the flow time (AdaLN-Zero)."""

    def __init__(self, width: int, heads: int, head: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attn_norm = AdaptiveNorm(width, 6)
        self.attn, self.ff = Attention(width, heads, head, dropout), FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor, seen: Tensor, rotary: Rotary, table: Tensor) -> Tensor:
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.attn_norm(time)
        attended = self.attn(modulated(x, shift, scale), seen, rotary, table)
        x = x + gate * (attended * mask[..., None])
        return x + ff_gate * self.ff(modulated(x, ff_shift, ff_scale))


class DiT(Estimator):
    """(noisy mel, prompt, mu, voice) stacked along channels -> velocity."""

    def __init__(
        self, inputs: int, n_mels: int, width: int, heads: int, head: int, hidden: int, blocks: int, groups: int, chunk: int, dropout: float
    ) -> None:
        """`groups`: of the convolutions in front; `chunk`: frames that stream at once."""
        super().__init__()
        self.chunk = chunk
        self.time_embed = TimeEmbedding(width)
        self.input_embed = InputEmbedding(inputs, width, groups)
        self.rotary_embed = Rotary(head)
        self.transformer_blocks = nn.ModuleList(Block(width, heads, head, hidden, dropout) for _ in range(blocks))
        self.norm_out = AdaptiveNorm(width, 2)
        self.proj_out = nn.Linear(width, n_mels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, time: Tensor, voice: Tensor, prompt: Tensor, streaming: Tensor) -> Tensor:
        time = self.time_embed(time)
        x = self.input_embed(torch.cat([x, prompt, mu, voice[:, None].expand(-1, x.shape[1], -1)], -1))
        seen, table = chunk_mask(mask, self.chunk, streaming), self.rotary_embed.table(x.shape[1])
        for block in self.transformer_blocks:
            x = block(x, time, mask, seen, self.rotary_embed, table)
        scale, shift = self.norm_out(time)
        return self.proj_out(modulated(x, shift, scale))

    @property
    def slot(self) -> Slot:
        return Slot(self.proj_out.in_features, ("transformer_blocks.*.ff",))

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.transformer_blocks)

    def block_mask(self, mask: Tensor) -> Tensor:
        return mask
