import numpy as np
import pytest
import torch

from ttsadapt.backbones.pitch import BINS, SCALES, Spread, coarse, melody, moments_of, wavelets


def curve(frames: int) -> np.ndarray:
    t = np.arange(frames)
    return 5.0 + 0.2 * np.sin(t / 9) + 0.1 * np.sin(t / 23 + 1) - 0.001 * t


def test_wavelets_equal_the_convolution_in_time():
    """Torrence & Compo (1998), equation 2, against the sum written out; the ends are far away."""
    signal, step = np.zeros(256), 0.005
    signal[100:140] = np.hanning(40)
    got = wavelets(signal)
    assert got.shape == (256, SCALES)
    offsets = np.arange(-128, 128) * step
    for k in (2, 3):  # long enough to be sampled well, short enough to have died off
        scale = 2 * step * 2**k
        eta = offsets / scale
        hat = (1 - eta**2) * np.exp(-(eta**2) / 2) / np.sqrt(3 * np.sqrt(np.pi) / 4)
        slow = np.convolve(signal, hat * np.sqrt(step / scale))[128 : 128 + 256]
        np.testing.assert_allclose(got[:, k], slow, atol=1e-6)


def test_a_melody_survives_its_wavelets():
    logarithm = curve(180)
    mean, deviation = moments_of(logarithm)
    cwt = torch.from_numpy(wavelets((logarithm - mean) / deviation)).float()
    hertz = melody(cwt[None], torch.tensor([[mean, deviation]]), torch.ones(1, 180, dtype=torch.bool))[0]
    assert np.corrcoef(hertz.log().numpy(), logarithm)[0, 1] > 0.95
    assert hertz.log().mean().item() == pytest.approx(mean, abs=1e-3)


def test_padding_does_not_change_a_melody():
    cwt, moments = torch.randn(1, 12, SCALES), torch.tensor([[5.0, 0.2]])
    alone = melody(cwt, moments, torch.ones(1, 12, dtype=torch.bool))
    padded = torch.cat([cwt, 9 * torch.ones(1, 5, SCALES)], 1)
    together = melody(padded, moments, torch.arange(17)[None] < 12)
    torch.testing.assert_close(together[:, :12], alone)


def test_bins_are_even_on_the_mel_scale():
    assert coarse(torch.tensor([0.0, 20.0, 50.0, 1100.0, 5000.0])).tolist() == [1, 1, 1, BINS - 1, BINS - 1]
    mel = torch.linspace(1127 * np.log1p(50 / 700), 1127 * np.log1p(1100 / 700), BINS - 1)
    assert coarse(700 * ((mel / 1127).exp() - 1)).diff().min() >= 0
    assert len(set(coarse(700 * ((mel / 1127).exp() - 1)).tolist())) == BINS - 1


def test_spreading_equals_the_loop():
    durations = torch.tensor([[2, 1, 3], [1, 2, 0]])
    frames = torch.arange(6) < torch.tensor([6, 3])[:, None]
    spread = Spread(durations, torch.tensor([[True] * 3, [True, True, False]]), frames)
    x, values = torch.randn(2, 3, 4), torch.randn(2, 6)
    for b in range(2):
        rows = torch.repeat_interleave(x[b], durations[b], 0)
        torch.testing.assert_close(spread.over(x)[b, : len(rows)], rows)
        assert not spread.over(x)[b, len(rows) :].any()
        parts = values[b, : len(rows)].split(durations[b].tolist())
        means = torch.stack([p.mean() if len(p) else torch.tensor(0.0) for p in parts])
        torch.testing.assert_close(spread.means(values)[b], means)
