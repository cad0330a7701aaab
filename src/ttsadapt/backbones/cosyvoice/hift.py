"""HiFT, CosyVoice's vocoder: mel -> pitch -> a source of harmonics -> filtered in frequency -> waveform (HiFTNet, Li et al. 2023).

A network predicts the short spectra of the waveform; the source enters it at every rate as its own short spectra. CosyVoice 3's
looks back only, but for a few frames. `layout_of` gives the weights the authors' names.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.backbones import official
from ttsadapt.backbones.cosyvoice.hift_layers import NormedConv, ResBlock, Upsample
from ttsadapt.backbones.cosyvoice.hift_source import PitchPredictor, Source
from ttsadapt.backbones.official import Layout, Notice, OfficialFile, Origin, Place, count_blocks
from ttsadapt.backbones.parts import evaluating

FAMILY = "CosyVoice HiFT"
SIGNATURES = {FAMILY: ("*m_source.l_linear.weight", "*f0_predictor.condnet.0.bias")}
N_FFT, HOP = 16, 4
"""of the short spectra"""
LIMIT, LOUDEST = 0.99, 1e2
"""of samples, and of the magnitudes that the network predicts"""


class HiFT(nn.Module):
    """Sizes of CosyVoice 2 by default. Everything inside is (B, C, T)."""

    window: Tensor

    def __init__(
        self,
        sample_rate: int = 24000,
        n_mels: int = 80,
        width: int = 512,
        pitch_width: int = 512,
        rates: Sequence[int] = (8, 5, 3),
        kernels: Sequence[int] = (16, 11, 7),
        res_kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[int] = (1, 3, 5),
        source_kernels: Sequence[int] = (7, 7, 11),
        harmonics: int = 8,
        causal: bool = False,
        ahead: int = 4,
        interpolated: bool = True,
    ) -> None:
        """`width`: channels before the first upsampling, halved by each; `rates`, `kernels`: of the upsamplings.

        `causal`: version 3, which looks `ahead` frames forward and no more. `interpolated`: the source's phase is summed up at the
        rate of the mel (versions 2, 3), not at that of the samples (version 1).
        """
        super().__init__()
        self.sample_rate, self.n_mels, self.causal, self.ahead = sample_rate, n_mels, causal, ahead
        self.rates, self.hop = tuple(rates), prod(rates) * HOP
        self.f0_predictor = PitchPredictor(n_mels, pitch_width, causal)
        self.m_source = Source(sample_rate, self.hop, harmonics, interpolated, uniform=causal)
        self.conv_pre = NormedConv(n_mels, width, ahead + 1 if causal else 7, pad="right" if causal else "same")
        self.ups, self.resblocks, self.source_resblocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.source_downs = nn.ModuleList()
        for i, (rate, kernel) in enumerate(zip(rates, kernels)):
            channels, down = width // 2 ** (i + 1), prod(self.rates[i + 1 :])
            self.ups.append(Upsample(2 * channels, channels, kernel, rate, causal))
            self.source_downs.append(nn.Conv1d(N_FFT + 2, channels, 2 * down if down > 1 else 1, down))
            self.source_resblocks.append(ResBlock(channels, source_kernels[i], dilations, causal))
            self.resblocks.extend(ResBlock(channels, k, dilations, causal) for k in res_kernels)
        self.conv_post = NormedConv(channels, N_FFT + 2, 7, pad="left" if causal else "same")
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, mel: Tensor, seed: int = 0) -> Tensor:
        """(frames, n_mels) nats -> (frames * hop,) samples in [-1, 1]; `seed` draws the source's noise."""
        with evaluating(self):
            mel = mel.to(self.conv_post.bias.device, self.conv_post.bias.dtype).T[None]
            source = self.m_source(self.pitch(mel), torch.Generator().manual_seed(seed))
            return self.decode(mel, source)[0]

    def pitch(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T) -> (B, T) in Hz. Version 3 computes it in double precision: its phase sums up every error."""
        return self.f0_predictor(mel.double() if self.causal else mel).to(mel.dtype)

    def decode(self, mel: Tensor, source: Tensor, last: bool = True) -> Tensor:
        """(B, n_mels, T), (B, T * hop) -> (B, samples). `last` false (causal only): the last frames are look-ahead, and are not spoken."""
        spectra = torch.stft(source, N_FFT, HOP, window=self.window, return_complex=True)
        spectra = torch.cat([spectra.real, spectra.imag], 1)
        x = self.conv_pre(mel)
        if not last:
            x, spectra = x[..., : -self.ahead], spectra[..., : -self.ahead * prod(self.rates)]
        x = self._body(x, spectra)
        log, angle = self.conv_post(F.leaky_relu(x)).chunk(2, 1)
        magnitude = log.exp().clamp_max(LOUDEST)
        # The sine of the network's second half is what the authors take for a phase.
        audio = torch.istft(torch.polar(magnitude, angle.sin()), N_FFT, HOP, window=self.window)
        return (audio if last else audio[:, : -self.hop]).clamp(-LIMIT, LIMIT)

    def _body(self, x: Tensor, spectra: Tensor) -> Tensor:
        stages, each = len(self.ups), len(self.resblocks) // len(self.ups)
        for i in range(stages):
            x = self.ups[i](F.leaky_relu(x, 0.1))
            if i == stages - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # centred spectra are one frame more
            x = x + self.source_resblocks[i](self._down(i, spectra))
            blocks = self.resblocks[i * each : (i + 1) * each]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        return x

    def _down(self, i: int, spectra: Tensor) -> Tensor:
        """The source at the rate of stage i."""
        conv = cast(nn.Conv1d, self.source_downs[i])
        rate = conv.stride[0]
        return conv(F.pad(spectra, (rate - 1, 0) if self.causal else (rate // 2, rate // 2)) if rate > 1 else spectra)

    @classmethod
    def sizes(cls, shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Any]:
        """Constructor arguments of the vocoder in a file: a version is known by its number of stages and by its first kernel."""

        def weight(name: str) -> tuple[int, ...]:
            return shapes[f"{prefix}{name}.parametrizations.weight.original1"]

        stages = count_blocks(shapes, rf"{prefix}ups\.(\d+)\.")
        width, n_mels, first = weight("conv_pre")
        downs = [shapes[f"{prefix}source_downs.{i}.weight"][2] // 2 or 1 for i in range(stages)]
        each = count_blocks(shapes, rf"{prefix}resblocks\.(\d+)\.") // stages
        before = [weight("f0_predictor.condnet.0"), weight("ups.0")]
        causal = before[0][2] == 4
        kernels = [weight(f"ups.{i}")[2] for i in range(stages)]
        rates = [kernels[0] // 2, *[a // b for a, b in pairwise(downs)]]
        return {
            "sample_rate": 22050 if stages == 2 else 24000,
            "n_mels": n_mels,
            "width": width,
            "pitch_width": before[0][0],
            "rates": rates,
            "kernels": kernels,
            "res_kernels": [weight(f"resblocks.{i}.convs1.0")[2] for i in range(each)],
            "source_kernels": [weight(f"source_resblocks.{i}.convs1.0")[2] for i in range(stages)],
            "harmonics": shapes[f"{prefix}m_source.l_linear.weight"][1] - 1,
            "causal": causal,
            "ahead": first - 1 if causal else 4,
            "interpolated": stages > 2,
        }

    @classmethod
    def from_file(
        cls, file: OfficialFile, dtype: torch.dtype = torch.float32, notice: Notice = print, **settings: Any
    ) -> tuple[Self, Layout, Origin]:
        """The vocoder in a released hift.pt (or a hifigan.pt, whose discriminators are kept and written back).

        CheckpointError in one line when the file is another model's or incomplete.
        """
        prefix = "generator." if any(name.startswith("generator.") for name in file.shapes) else ""
        try:
            sizes = cls.sizes(file.shapes, prefix)
        except (KeyError, ZeroDivisionError) as error:
            missing = str(error.args[0]) if isinstance(error, KeyError) else f"{prefix}ups.0.bias"
            raise official.lacking(file, missing, FAMILY) from error
        hift = official.build(lambda: cls(**{**sizes, **settings}))
        layout = layout_of(prefix)
        return hift, layout, official.load(hift, file, layout, dtype, notice)


def layout_of(prefix: str = "") -> Layout:
    """Where a `NormedConv`'s `scale` and `direction` stand in a file written by torch's weight_norm."""

    def place(name: str) -> Place:
        head, _, leaf = name.rpartition(".")
        normed = {"scale": "parametrizations.weight.original0", "direction": "parametrizations.weight.original1"}
        return Place(f"{prefix}{head}.{normed.get(leaf, leaf)}")

    return Layout(FAMILY, place, optional=("discriminator.*",) if prefix else ())
