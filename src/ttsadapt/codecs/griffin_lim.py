"""Log-mel frames -> waveform without a learnt vocoder (Griffin & Lim 1984; momentum: Perraudin et al. 2013)."""

import torch
from torch import Tensor, nn
from torchaudio.functional import griffinlim

from ttsadapt.codecs.mel import MelSpectrogram


class GriffinLim(nn.Module):
    """Deterministic: the same frames give the same samples."""

    inverse: Tensor

    def __init__(self, mel: MelSpectrogram, iterations: int = 32, momentum: float = 0.99, updates: int = 10) -> None:
        """`updates`: multiplicative steps towards the non-negative least-squares magnitude, from the clamped pseudo-inverse."""
        super().__init__()
        self.mel, self.iterations, self.momentum, self.updates = mel, iterations, momentum, updates
        self.register_buffer("inverse", torch.linalg.pinv(mel.bands), persistent=False)  # (n_mels, n_fft / 2 + 1)

    def magnitude(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) nats -> (frames, n_fft / 2 + 1), non-negative."""
        bands, wanted = self.mel.bands, mel.exp()
        magnitude = (wanted @ self.inverse).clamp_min(self.mel.floor)
        towards = wanted @ bands.T
        for _ in range(self.updates):  # Lee & Seung 2001: never leaves the positive orthant, never raises the error
            magnitude = magnitude * towards / ((magnitude @ bands) @ bands.T).clamp_min(1e-12)
        return magnitude

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        """(frames, n_mels) nats -> ((frames - 1) * hop,) samples in [-1, 1]."""
        n_fft, hop, samples = self.mel.n_fft, self.mel.hop, (len(mel) - 1) * self.mel.hop
        if samples <= n_fft // 2:  # too short to reflect half a window
            return mel.new_zeros(samples)
        magnitude = self.magnitude(mel.float())
        audio = griffinlim(
            magnitude.T,
            window=self.mel.window,
            n_fft=n_fft,
            hop_length=hop,
            win_length=n_fft,
            power=1.0,
            n_iter=self.iterations,
            momentum=self.momentum,
            length=samples,
            rand_init=False,
        )
        return audio.clamp(-1, 1)
