"""The velocity estimators of CosyVoice 1 and 2: a 1-d U-Net of residual convolutions and Transformer blocks (Matcha-TTS, section 3.2).

CosyVoice 1 halves the rate once and looks both ways; CosyVoice 2 keeps the rate and its convolutions look back only.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ttsadapt.backbones.base import Slot
from ttsadapt.backbones.cosyvoice.conformer import chunk_mask
from ttsadapt.backbones.cosyvoice.estimator import Estimator
from ttsadapt.backbones.cosyvoice.unet_layers import ConvBlock, Resample, ResidualBlock, Stage, TimeEmbedding, TransformerBlock, convolved


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
        begin_as_identity(self)

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
    def slot(self) -> Slot:
        """In the middle, where one width is sure."""
        first = cast(ResidualBlock, cast(Stage, self.mid_blocks[0])[0])
        return Slot(first.res_conv.out_channels, ("mid_blocks.*.ff",))

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


@torch.no_grad()
def begin_as_identity(unet: UNet) -> None:
    """A new network passes its first channels, the noisy mel, on to its last block (Zhang et al. 2019, fixup initialisation).

    The last block's convolution looks at them with either sign, so that what follows is nearly linear in spite of its
    non-linearity (Balduzzi et al. 2017, section 4). Learning to do so takes a new network longer than learning to speak.
    """
    now = 2 if unet.causal else 1  # the tap of a convolution of three that sees the present frame
    for module in unet.modules():
        if isinstance(module, ResidualBlock):
            _only(module.res_conv, (0,))
            nn.init.zeros_(cast(nn.LayerNorm, module.block2.norm).weight)
        elif isinstance(module, TransformerBlock):
            for linear in (module.attn1.out, module.ff.out):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        elif isinstance(module, Resample):
            _only(module.conv, (1, 2) if isinstance(module.conv, nn.ConvTranspose1d) else (1,))
        elif isinstance(module, Stage) and len(module) == 3 and isinstance(module.onward, nn.Conv1d):
            _only(module.onward, (now,))
    for stage in list(unet.up_blocks)[1:]:  # what comes up from a lower rate has lost frames that the skip still has
        shortcut = cast(ResidualBlock, cast(Stage, stage)[0]).res_conv
        nn.init.zeros_(shortcut.weight)
        nn.init.eye_(shortcut.weight[:, shortcut.in_channels // 2 :, 0])
    last = unet.final_block.conv
    half = last.out_channels // 2
    last.weight.mul_(0.1)[:half, :, now] += torch.eye(half, last.in_channels, device=last.weight.device)
    last.weight[half : 2 * half] = -last.weight[:half]
    nn.init.zeros_(cast(Tensor, last.bias))
    nn.init.normal_(unet.final_proj.weight, std=0.01)


def _only(conv: nn.Conv1d | nn.ConvTranspose1d, taps: Sequence[int]) -> None:
    """Each channel goes where it came from, at each of the taps."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(cast(Tensor, conv.bias))
    for tap in taps:
        nn.init.eye_(conv.weight[..., tap])
