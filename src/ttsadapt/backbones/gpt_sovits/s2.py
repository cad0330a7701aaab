"""GPT-SoVITS's second stage, first two versions: semantic tokens, phones and a voice to 32 kHz audio (module/models.py).

VITS (Kim et al. 2021) with tokens in the place of text: transformers' VITS gives the encoders, the flow and the HiFi-GAN. Own
parts are what the authors added: cross-attention from tokens to phones, and the style encoder. It only speaks: it is frozen.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations
from transformers import VitsConfig
from transformers.models.vits.modeling_vits import VitsEncoder, VitsHifiGan, VitsResidualCouplingBlock, VitsWaveNet

STYLE_WIDTH, STYLE_HEADS, CROSS_HEADS = 128, 2, 4
"""of the style encoder and of the cross-attention: constants in the authors' code, in no config"""


@dataclass(frozen=True)
class S2Sizes:
    """Sizes of the synthesiser; what shapes do not show has the values of configs/s2.json."""

    phones: int
    bins: int
    """of the linear spectrogram that the style encoder looks at: 1025 in v1, the lowest 704 in v2"""
    width: int = 192
    latent: int = 192
    filter: int = 768
    heads: int = 2
    layers: int = 6
    kernel: int = 3
    voice: int = 512
    semantic: int = 768
    codewords: int = 1024
    upsample_rates: tuple[int, ...] = (10, 8, 2, 2, 2)
    upsample_kernels: tuple[int, ...] = (16, 16, 8, 2, 2)
    upsample_width: int = 512
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = field(default=((1, 3, 5),) * 3)

    def vits(self, layers: int) -> VitsConfig:
        return VitsConfig(
            hidden_size=self.width,
            num_hidden_layers=layers,
            num_attention_heads=self.heads,
            window_size=4,
            ffn_dim=self.filter,
            ffn_kernel_size=self.kernel,
            hidden_act="relu",
            flow_size=self.latent,
            speaker_embedding_size=self.voice,
            prior_encoder_num_flows=4,
            prior_encoder_num_wavenet_layers=4,
            wavenet_kernel_size=5,
            wavenet_dilation_rate=1,
            upsample_rates=list(self.upsample_rates),
            upsample_kernel_sizes=list(self.upsample_kernels),
            upsample_initial_channel=self.upsample_width,
            resblock_kernel_sizes=list(self.resblock_kernels),
            resblock_dilation_sizes=[list(d) for d in self.resblock_dilations],
        )


class Encoder(nn.Module):
    """Post-norm Transformer with relative positions, of one utterance without padding."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.layers = VitsEncoder(config).layers

    def forward(self, x: Tensor) -> Tensor:
        """(1, T, C) -> (1, T, C)"""
        everywhere = x.new_ones(1, x.shape[1], 1)
        for layer in self.layers:
            x = layer(x, padding_mask=everywhere)[0]
        return x


class CrossAttention(nn.Module):
    """Tokens look at phones, and the voice is added (module/mrte_model.py)."""

    def __init__(self, width: int, hidden: int, heads: int = CROSS_HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.c_pre, self.text_pre, self.c_post = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, text: Tensor | None, voice: Tensor) -> Tensor:
        """(1, T, C), (1, P, C), (1, 1, voice) -> (1, T, C); without text nothing is looked at, an ablation of the authors'."""
        x = self.c_pre(x)
        seen = 0.0 if text is None else self._looked(x, self.text_pre(text))
        return self.c_post(seen + x + voice)

    def _looked(self, x: Tensor, text: Tensor) -> Tensor:
        pairs = ((self.query, x), (self.key, text), (self.value, text))
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part, y in pairs)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class StyleEncoder(nn.Module):
    """A spectrogram -> the voice (Meta-StyleSpeech, Min et al. 2021, section 3.1, as in the authors' modules.py)."""

    def __init__(self, bins: int, out: int, width: int = STYLE_WIDTH, heads: int = STYLE_HEADS, kernel: int = 5) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.spectral = nn.ModuleList([nn.Linear(bins, width), nn.Linear(width, width)])
        self.temporal = nn.ModuleList(nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2) for _ in range(2))
        self.query, self.key, self.value, self.join = (nn.Linear(width, width) for _ in range(4))
        self.out = nn.Linear(width, out)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(1, bins, T) -> (1, out)"""
        x = spectrogram.mT
        for linear in self.spectral:
            x = F.mish(linear(x))
        for conv in self.temporal:
            x = x + F.glu(conv(x.mT), dim=1).mT
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        # The authors divide by the root of the whole width, not of a head's.
        seen = F.scaled_dot_product_attention(q, k, v, scale=self.width**-0.5).transpose(1, 2).flatten(2)
        return self.out(x + self.join(seen)).mean(1)


class Quantizer(nn.Module):
    """HuBERT's 50 frames a second -> 25 semantic tokens."""

    def __init__(self, semantic: int, codewords: int) -> None:
        super().__init__()
        self.ssl_proj = nn.Conv1d(semantic, semantic, 2, stride=2)
        self.codebook = nn.Embedding(codewords, semantic)

    def forward(self, frames: Tensor) -> Tensor:
        """(1, T, semantic) -> (T // 2,) long, the nearest codewords"""
        return torch.cdist(self.ssl_proj(frames.mT).mT[0], self.codebook.weight).argmin(1)


class Synthesiser(nn.Module):
    """Tokens, phones and a voice -> audio."""

    def __init__(self, sizes: S2Sizes) -> None:
        super().__init__()
        half, whole = sizes.vits(sizes.layers // 2), sizes.vits(sizes.layers)
        self.sizes = sizes
        self.quantizer = Quantizer(sizes.semantic, sizes.codewords)
        self.token_proj = nn.Linear(sizes.semantic, sizes.width)
        self.text_embedding = nn.Embedding(sizes.phones, sizes.width)
        self.encoder_ssl, self.encoder_text, self.encoder2 = Encoder(half), Encoder(whole), Encoder(half)
        self.mrte = CrossAttention(sizes.width, sizes.voice)
        self.proj = nn.Linear(sizes.width, 2 * sizes.latent)
        self.flow = VitsResidualCouplingBlock(whole)
        self.dec = VitsHifiGan(whole)
        self.ref_enc = StyleEncoder(sizes.bins, sizes.voice)
        _plain(self.flow)

    def prior(self, tokens: Tensor, phones: Tensor | None, voice: Tensor) -> tuple[Tensor, Tensor]:
        """(S,), (P,) or None, (voice,) -> mean and log deviation of the latent, each (1, latent, 2 S): 50 frames a second."""
        frames = self.quantizer.codebook(tokens).repeat_interleave(2, 0)[None]
        x = self.encoder_ssl(self.token_proj(frames))
        text = None if phones is None else self.encoder_text(self.text_embedding(phones)[None])
        x = self.encoder2(self.mrte(x, text, voice[None, None]))
        mean, deviation = self.proj(x).mT.chunk(2, 1)
        return mean, deviation

    def forward(self, tokens: Tensor, phones: Tensor | None, voice: Tensor, noise: Tensor) -> Tensor:
        """`noise` (1, latent, 2 S), standard normal times the noise scale -> (samples,) in [-1, 1]"""
        mean, deviation = self.prior(tokens, phones, voice)
        everywhere, condition = mean.new_ones(1, 1, mean.shape[2]), voice[None, :, None]
        latent = self.flow(mean + noise * deviation.exp(), everywhere, condition, reverse=True)
        return self.dec(latent, condition)[0, 0]


def _plain(module: nn.Module) -> None:
    """Weights as they act, instead of direction and length: nothing is trained here."""
    for wavenet in (m for m in module.modules() if isinstance(m, VitsWaveNet)):
        convs: list[Any] = [wavenet.cond_layer, *wavenet.in_layers, *wavenet.res_skip_layers]
        for conv in convs:
            remove_parametrizations(conv, "weight")
