"""Waveform -> log-mel frames as Matcha-TTS and CosyVoice make them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.errors import DataError


class MatchaMel(MelSpectrogram):
    """One frame for every whole hop: frame t is centred on sample t * hop + hop / 2.

    Version 1: 22050 Hz, n_fft 1024, hop 256, high 8000. Version 2: 24000, 1920, 480, 8000. Version 3: the same with high null.
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        n_fft: int = 1920,
        hop: int = 480,
        n_mels: int = 80,
        low: float = 0.0,
        high: float | None = None,
        floor: float = 1e-5,
    ) -> None:
        """`high`: top of the highest band in Hz, null for half the sample rate."""
        super().__init__(sample_rate, n_fft, hop, n_mels, low, sample_rate / 2 if high is None else high, floor)

    def frames(self, samples: int) -> int:
        return samples // self.hop

    def magnitude(self, audio: Tensor) -> Tensor:
        """(..., samples) -> (..., frames, n_fft / 2 + 1). The ends are reflected, which takes (n_fft - hop) / 2 samples and one more."""
        edge = (self.n_fft - self.hop) // 2
        if audio.shape[-1] < max(edge + 1, self.hop):
            raise DataError(
                f"a recording of {audio.shape[-1]} samples is too short: at least {max(edge + 1, self.hop)} samples at "
                f"{self.sample_rate} Hz are needed; remove it or join it with its neighbour"
            )
        padded = F.pad(audio.reshape(-1, audio.shape[-1]), (edge, edge), mode="reflect")
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)
        magnitude = (spectrum.abs().square() + 1e-9).sqrt().mT
        return magnitude.reshape(*audio.shape[:-1], *magnitude.shape[1:])
