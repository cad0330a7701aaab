"""The mel front end of the three versions."""

import pytest
import torch

from backbones.cosyvoice import golden
from ttsadapt.backbones.cosyvoice.mel import MatchaMel
from ttsadapt.codecs.griffin_lim import GriffinLim
from ttsadapt.errors import DataError


@pytest.mark.golden
@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_frames_are_the_authors(version):
    io = golden.tensors("mel")
    rate, n_fft, hop, low, high = golden.manifest("mel")["config"][version]
    wav, wanted, basis = (io[f"{version}.{name}"] for name in ("wav", "mel", "basis"))
    mel = MatchaMel(rate, n_fft, hop, len(basis), low, high)
    torch.testing.assert_close(mel.bands.T, basis, atol=1e-6, rtol=0)
    torch.testing.assert_close(mel(wav), wanted.mT, atol=1e-4, rtol=0)
    assert torch.equal(mel(wav[0]), mel(wav)[0]) and mel.frames(wav.shape[1]) == wanted.shape[2]


def test_a_frame_for_every_whole_hop_and_nothing_shorter_than_its_edges():
    mel = MatchaMel(16000, 1024, 320)
    torch.manual_seed(0)
    for samples in (353, 640, 1599):
        assert mel(torch.randn(samples)).shape == (mel.frames(samples), 80) == (samples // 320, 80)
    with pytest.raises(DataError, match="at least 353 samples at 16000 Hz"):
        mel(torch.randn(352))


def test_a_tone_comes_back_from_its_mel():
    mel = MatchaMel(16000, 1024, 320, high=8000.0)
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    audio = GriffinLim(mel)(mel(tone))
    spectrum = torch.fft.rfft(audio[4000:12000] * torch.hann_window(8000)).abs()
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 4
