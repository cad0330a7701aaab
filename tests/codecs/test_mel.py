import librosa
import numpy as np
import pytest
import torch

from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.errors import DataError


def voice(seconds: float = 1.0, hertz: float = 120.0, rate: int = 16000) -> torch.Tensor:
    """Harmonics under two formants, with a slow swell: nothing a codec could get right by being constant."""
    t = torch.arange(int(seconds * rate)) / rate
    frequencies = hertz * torch.arange(1, 40)
    gains = torch.exp(-(((frequencies - 600) / 300) ** 2)) + 0.5 * torch.exp(-(((frequencies - 1800) / 500) ** 2)) + 0.01
    wave = (gains[:, None] * torch.sin(2 * torch.pi * frequencies[:, None] * t)).sum(0)
    return 0.5 * wave / wave.abs().max() * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * t))


def test_mel_equals_the_definition():
    wave = voice()
    mel = MelSpectrogram()(wave)
    padded = np.pad(wave.numpy().astype(np.float64), 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[256 * t : 256 * t + 1024] * window for t in range(1 + 16000 // 256)])
    theirs = np.abs(np.fft.rfft(frames)) @ librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80, fmax=8000).T
    assert mel.shape == (63, 80)
    np.testing.assert_allclose(mel.numpy(), np.log(theirs.clip(1e-5)), atol=2e-3)


def test_mel_takes_batches_and_has_a_floor():
    mel = MelSpectrogram()
    waves = torch.stack([voice(), torch.zeros(16000)])
    both = mel(waves)
    torch.testing.assert_close(both[0], mel(waves[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1], torch.full_like(both[1], np.log(1e-5)))
    assert mel.frames(16000) == both.shape[1]


def test_a_recording_shorter_than_half_a_window_is_refused():
    with pytest.raises(DataError, match="512 samples"):
        MelSpectrogram()(torch.zeros(512))


def test_griffin_lim_returns_the_mel_it_was_given():
    mel = MelSpectrogram()
    frames = mel(voice(1.5))
    wave = GriffinLim(mel)(frames)
    assert wave.shape == ((len(frames) - 1) * 256,)
    again = mel(wave)
    loud = frames.mean(-1) > frames.mean(-1).median()
    assert (again - frames)[loud].abs().mean() < 0.3  # nats
    assert torch.equal(wave, GriffinLim(mel)(frames))


def test_updates_bring_the_magnitude_nearer_to_the_mel():
    mel = MelSpectrogram()
    frames = mel(voice())

    def error(updates: int) -> float:
        return float((GriffinLim(mel, updates=updates).magnitude(frames) @ mel.bands - frames.exp()).square().sum())

    assert error(10) < 0.7 * error(0)


def test_fewer_frames_than_a_window_become_silence():
    mel = MelSpectrogram()
    assert torch.equal(GriffinLim(mel)(torch.zeros(3, 80)), torch.zeros(512))
