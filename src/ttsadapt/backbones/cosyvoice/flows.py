"""The flows of CosyVoice 1, 2 and 3: which encoder, which estimator, which sizes. Defaults are those of the released models."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.cosyvoice.conformer import ConformerEncoder
from ttsadapt.backbones.cosyvoice.dit import DiT
from ttsadapt.backbones.cosyvoice.encoders import LengthRegulator, LookAhead, UpsampleEncoder, stretched, stretched_in_parts
from ttsadapt.backbones.cosyvoice.flow import Flow
from ttsadapt.backbones.cosyvoice.unet import UNet
from ttsadapt.backbones.cosyvoice.unet_layers import MaskedGroupNorm
from ttsadapt.backbones.official import OfficialFile, count_blocks
from ttsadapt.backbones.parts import sequence_mask
from ttsadapt.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

_ESTIMATOR = "decoder.estimator"
_CONFORMER = (*(f"*encoders.*.self_attn.linear_{name}" for name in ("q", "k", "v", "out", "pos")), "*encoders.*.feed_forward.w_?")
_UNET = (*(f"*blocks.*.attn1.to_{name}" for name in ("q", "k", "v", "out.0")), "*blocks.*.ff.net.0.proj", "*blocks.*.ff.net.2")

SIGNATURES = {
    "CosyVoice1 flow": ("length_regulator.model.*", "decoder.estimator.*"),
    "CosyVoice2 flow": ("encoder.up_layer.conv.weight", "decoder.estimator.*"),
    "CosyVoice3 flow": ("decoder.estimator.transformer_blocks.*", "pre_lookahead_layer.*"),
}


class CosyVoice1Flow(Flow):
    """Conformer encoder, linear stretching to the mel's rate, U-Net."""

    family: ClassVar[str] = "CosyVoice1 flow"
    adaptable: ClassVar[tuple[str, ...]] = (*_CONFORMER, *_UNET)

    def __init__(
        self,
        tokens: int = 4096,
        voice_size: int = 192,
        n_mels: int = 80,
        token_width: int = 512,
        width: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        blocks: int = 6,
        regulator_layers: int = 4,
        channels: Sequence[int] = (256, 256),
        middle: int = 12,
        transformers: int = 4,
        unet_heads: int = 8,
        unet_head: int = 64,
        token_rate: float = 50.0,
        mel_rate: float = 22050 / 256,
        dropout: float = 0.1,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        guidance: float = 0.7,
        temperature: float = 1.0,
        spread: float = 0.0,
        padding_leaks: bool = False,
    ) -> None:
        """`token_rate`, `mel_rate`: a second; the others as in `Flow` and `UNet`. An utterance has round-down(tokens * rate) frames."""
        unet = UNet(4 * n_mels, n_mels, channels, middle, transformers, unet_heads, unet_head, causal=False, chunk=1)
        super().__init__(tokens, token_width, voice_size, n_mels, unet, mel_mean, mel_std, guidance, temperature, spread, padding_leaks)
        self.rate = mel_rate / token_rate
        self.encoder = ConformerEncoder(token_width, width, heads, hidden, blocks, dropout, dropout)
        self.encoder_proj = nn.Linear(width, n_mels)
        self.length_regulator = LengthRegulator(n_mels, regulator_layers)
        for module in self.modules():
            if isinstance(module, MaskedGroupNorm):
                module.leaky = padding_leaks

    def encode(self, tokens: Tensor, lengths: Tensor, mel_lengths: Tensor, frames: int, streaming: Tensor) -> Tensor:
        x = self._encoded(tokens, sequence_mask(lengths, tokens.shape[1]))
        if self.padding_leaks:  # their code stretches the batch as a whole
            lengths = torch.full_like(lengths, tokens.shape[1])
            x = stretched(x, lengths, torch.full_like(lengths, frames), frames)
        else:
            x = stretched(x, lengths, mel_lengths, frames)
        return self.length_regulator(x, sequence_mask(mel_lengths, frames))

    def encode_one(self, tokens: Tensor, prompt_tokens: Tensor, prompt_frames: int, streaming: Tensor, last: bool) -> Tensor:
        whole = torch.cat([prompt_tokens, tokens])[None]
        x = self._encoded(whole, torch.ones_like(whole, dtype=torch.bool))
        before, after = x[:, : len(prompt_tokens)], x[:, len(prompt_tokens) :]
        x = stretched_in_parts(after, max(int(len(tokens) * self.rate), 1), self.rate)
        if prompt_frames:
            x = torch.cat([nn.functional.interpolate(before.mT, size=prompt_frames, mode="linear").mT, x], 1)
        return self.length_regulator(x, x.new_ones(x.shape[:2], dtype=torch.bool))

    def prompt(self, tokens: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        frames = min(len(mel), int(len(tokens) * self.rate)) if len(tokens) else 0
        return tokens[: round(frames / self.rate)] if frames else tokens[:0], mel[:frames]

    def _encoded(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.input_embedding(tokens) * mask[..., None]
        return self.encoder_proj(self.encoder(x, mask[:, None]))

    @classmethod
    def sizes(cls, shapes: Shapes, **settings: Any) -> dict[str, Any]:
        layers = count_blocks(shapes, r"length_regulator\.model\.(\d+)\.") // 3
        return _shared(shapes) | _conformer(shapes) | _unet(shapes, **settings) | {"regulator_layers": layers}


class Chunked(Flow):
    """Versions 2 and 3: two frames a token, look-ahead, streaming in chunks."""

    def prompt(self, tokens: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        count = min(len(tokens), len(mel) // 2)
        return tokens[:count], mel[: 2 * count]

    def encode(self, tokens: Tensor, lengths: Tensor, mel_lengths: Tensor, frames: int, streaming: Tensor) -> Tensor:
        if 2 * tokens.shape[1] < frames:
            raise ValueError(f"{tokens.shape[1]} tokens for {frames} frames: there must be one for every two")
        mask = sequence_mask(lengths, tokens.shape[1])
        return self._encoded(self.input_embedding(tokens) * mask[..., None], mask, streaming)[:, :frames]

    def encode_one(self, tokens: Tensor, prompt_tokens: Tensor, prompt_frames: int, streaming: Tensor, last: bool) -> Tensor:
        x = self.input_embedding(torch.cat([prompt_tokens, tokens]))[None]
        here = x.shape[1] - (0 if last else self.ahead)
        x, context = x[:, :here], None if last else x[:, here:]
        return self._encoded(x, x.new_ones(x.shape[:2], dtype=torch.bool), streaming, context)

    ahead: int
    """tokens of look-ahead"""

    def _encoded(self, x: Tensor, mask: Tensor, streaming: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, S, token_width) -> (B, 2 S, n_mels)"""
        raise TypeError(f"{type(self).__name__} has no encoder")


class CosyVoice2Flow(Chunked):
    """Encoder that doubles the rate, causal U-Net at one rate."""

    family: ClassVar[str] = "CosyVoice2 flow"
    adaptable: ClassVar[tuple[str, ...]] = (*_CONFORMER, *_UNET)

    def __init__(
        self,
        tokens: int = 6561,
        voice_size: int = 192,
        n_mels: int = 80,
        token_width: int = 512,
        width: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        blocks: int = 6,
        up_blocks: int = 4,
        ahead: int = 3,
        chunk: int = 25,
        channels: Sequence[int] = (256,),
        middle: int = 12,
        transformers: int = 4,
        unet_heads: int = 8,
        unet_head: int = 64,
        dropout: float = 0.1,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        guidance: float = 0.7,
        temperature: float = 1.0,
        spread: float = 0.0,
        padding_leaks: bool = False,
    ) -> None:
        """`ahead`: tokens of look-ahead; `chunk`: tokens that stream at once; the others as in `Flow` and `UNet`."""
        unet = UNet(4 * n_mels, n_mels, channels, middle, transformers, unet_heads, unet_head, causal=True, chunk=2 * chunk)
        super().__init__(tokens, token_width, voice_size, n_mels, unet, mel_mean, mel_std, guidance, temperature, spread, padding_leaks)
        self.ahead = ahead
        self.encoder = UpsampleEncoder(token_width, width, heads, hidden, blocks, up_blocks, ahead, chunk, dropout, dropout)
        self.encoder_proj = nn.Linear(width, n_mels)

    def _encoded(self, x: Tensor, mask: Tensor, streaming: Tensor, context: Tensor | None = None) -> Tensor:
        return self.encoder_proj(self.encoder(x, mask, streaming, context, self.padding_leaks))

    @classmethod
    def sizes(cls, shapes: Shapes, **settings: Any) -> dict[str, Any]:
        ups = count_blocks(shapes, r"encoder\.up_encoders\.(\d+)\.")
        ahead = shapes["encoder.pre_lookahead_layer.conv1.weight"][2] - 1
        return _shared(shapes) | _conformer(shapes) | _unet(shapes, **settings) | {"up_blocks": ups, "ahead": ahead}


class CosyVoice3Flow(Chunked):
    """Token vectors as wide as the mel, a look-ahead and repetition for an encoder; DiT."""

    family: ClassVar[str] = "CosyVoice3 flow"
    adaptable: ClassVar[tuple[str, ...]] = (
        *(f"*transformer_blocks.*.attn.to_{name}" for name in ("q", "k", "v", "out.0")),
        *(f"*transformer_blocks.*.ff.ff.{name}" for name in ("0.0", "2")),
    )

    def __init__(
        self,
        tokens: int = 6561,
        voice_size: int = 192,
        n_mels: int = 80,
        ahead: int = 3,
        ahead_width: int = 1024,
        chunk: int = 25,
        width: int = 1024,
        heads: int = 16,
        head: int = 64,
        hidden: int = 2048,
        blocks: int = 22,
        conv_groups: int = 16,
        dropout: float = 0.1,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        guidance: float = 0.7,
        temperature: float = 1.0,
        spread: float = 0.0,
        padding_leaks: bool = False,
    ) -> None:
        """`ahead`: tokens of look-ahead; `chunk`: tokens that stream at once; the others as in `Flow` and `DiT`."""
        dit = DiT(4 * n_mels, n_mels, width, heads, head, hidden, blocks, conv_groups, 2 * chunk, dropout)
        super().__init__(tokens, n_mels, voice_size, n_mels, dit, mel_mean, mel_std, guidance, temperature, spread, padding_leaks)
        self.ahead = ahead
        self.pre_lookahead_layer = LookAhead(n_mels, ahead_width, ahead)

    def _encoded(self, x: Tensor, mask: Tensor, streaming: Tensor, context: Tensor | None = None) -> Tensor:
        return self.pre_lookahead_layer(x, context).repeat_interleave(2, 1)

    @classmethod
    def sizes(cls, shapes: Shapes, **settings: Any) -> dict[str, Any]:
        head = 2 * shapes[f"{_ESTIMATOR}.rotary_embed.inv_freq"][0]
        convolution = shapes[f"{_ESTIMATOR}.input_embed.conv_pos_embed.conv1.0.weight"]
        found = _shared(shapes)
        found.pop("token_width")
        return found | {
            "ahead": shapes["pre_lookahead_layer.conv1.weight"][2] - 1,
            "ahead_width": shapes["pre_lookahead_layer.conv1.weight"][0],
            "width": shapes[f"{_ESTIMATOR}.proj_out.weight"][1],
            "heads": shapes[f"{_ESTIMATOR}.transformer_blocks.0.attn.to_q.weight"][0] // head,
            "head": head,
            "hidden": shapes[f"{_ESTIMATOR}.transformer_blocks.0.ff.ff.2.weight"][1],
            "blocks": count_blocks(shapes, r"decoder\.estimator\.transformer_blocks\.(\d+)\."),
            "conv_groups": convolution[0] // convolution[1],
        }


FLOWS: tuple[type[Flow], ...] = (CosyVoice1Flow, CosyVoice2Flow, CosyVoice3Flow)


def flow_class(file: OfficialFile) -> type[Flow]:
    """Which version's flow a file holds. CheckpointError when it holds none."""
    seen = official.recognise(file.shapes)
    for flow in FLOWS:
        if seen is not None and seen[0] == flow.family:
            return flow
    told = f"this looks like a {seen[0]}: key {seen[1]}" if seen else f"it has {', '.join(sorted(file.shapes)[:5])}"
    raise CheckpointError(f"{file.path} is not a CosyVoice flow: {told}")


def _shared(shapes: Shapes) -> dict[str, Any]:
    tokens, width = shapes["input_embedding.weight"]
    n_mels, voice = shapes["spk_embed_affine_layer.weight"]
    return {"tokens": tokens, "token_width": width, "n_mels": n_mels, "voice_size": voice}


def _conformer(shapes: Shapes) -> dict[str, Any]:
    return {
        "width": shapes["encoder.after_norm.weight"][0],
        "heads": shapes["encoder.encoders.0.self_attn.pos_bias_u"][0],
        "hidden": shapes["encoder.encoders.0.feed_forward.w_1.weight"][0],
        "blocks": count_blocks(shapes, r"encoder\.encoders\.(\d+)\."),
    }


def _unet(shapes: Shapes, unet_head: int = 64, **_: Any) -> dict[str, Any]:
    """How many heads of which size is not in the shapes: the size is a setting."""
    stages = count_blocks(shapes, r"decoder\.estimator\.down_blocks\.(\d+)\.")
    return {
        "channels": [shapes[f"{_ESTIMATOR}.down_blocks.{i}.0.res_conv.weight"][0] for i in range(stages)],
        "middle": count_blocks(shapes, r"decoder\.estimator\.mid_blocks\.(\d+)\."),
        "transformers": count_blocks(shapes, r"decoder\.estimator\.down_blocks\.0\.1\.(\d+)\."),
        "unet_head": unet_head,
        "unet_heads": shapes[f"{_ESTIMATOR}.down_blocks.0.1.0.attn1.to_q.weight"][0] // unet_head,
    }
