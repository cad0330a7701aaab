"""Waveform -> log-mel frames."""

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from ttsadapt.errors import DataError


class MelSpectrogram(nn.Module):
    """Slaney mel bands of the STFT's magnitude, in nats: the audio front of FastSpeech 2 and of HiFi-GAN vocoders.

    Frame t is centred on sample t * hop; a recording of n samples has 1 + n // hop frames.
    """

    window: Tensor
    bands: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        hop: int = 256,
        n_mels: int = 80,
        low: float = 0.0,
        high: float = 8000.0,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.hop, self.n_mels, self.floor = sample_rate, n_fft, hop, n_mels, floor
        bands = melscale_fbanks(n_fft // 2 + 1, low, high, n_mels, sample_rate, norm="slaney", mel_scale="slaney")
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("bands", bands, persistent=False)  # (n_fft / 2 + 1, n_mels)

    def frames(self, samples: int) -> int:
        return 1 + samples // self.hop

    def magnitude(self, audio: Tensor) -> Tensor:
        """(..., samples) -> (..., frames, n_fft / 2 + 1). The ends are reflected, so half a window is the shortest input."""
        if audio.shape[-1] <= self.n_fft // 2:
            raise DataError(
                f"a recording of {audio.shape[-1]} samples is too short: more than {self.n_fft // 2} samples at {self.sample_rate} Hz "
                "are needed; remove it or join it with its neighbour"
            )
        spectrum = torch.stft(audio, self.n_fft, self.hop, window=self.window, pad_mode="reflect", return_complex=True)
        return spectrum.abs().transpose(-1, -2)

    def forward(self, audio: Tensor) -> Tensor:
        """(..., samples) in [-1, 1] -> (..., frames, n_mels) natural logarithms."""
        return (self.magnitude(audio) @ self.bands).clamp_min(self.floor).log()
