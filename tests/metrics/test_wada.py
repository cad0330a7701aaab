"""WADA-SNR against its closed-form limits, drawn mixtures, and what must not change it."""

import numpy as np
import pytest
import torch

from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.wada import DECIBELS, WadaSNR, curve, wada_snr


def mixture(snr: float, size: int = 400_000) -> np.ndarray:
    draw = np.random.default_rng(0)
    speech = draw.gamma(0.4, 1.0, size) * draw.choice([-1, 1], size)
    return (speech / speech.std() + 10 ** (-snr / 20) * draw.standard_normal(size)).astype(np.float32)


def test_the_limits_are_those_of_noise_and_of_speech():
    noise = np.log(np.sqrt(2 / np.pi)) + (np.euler_gamma + np.log(2)) / 2
    speech = np.log(0.4) + 2.5613845  # ln a - digamma(a) at a = 0.4
    assert curve()[0] == pytest.approx(noise, abs=1e-3)
    assert speech - 0.03 < curve()[-1] < speech
    assert (np.diff(curve()) >= 0).all() and len(curve()) == len(DECIBELS)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0, 40.0])
def test_drawn_mixtures_are_read_back(snr):
    assert wada_snr(mixture(snr)) == pytest.approx(snr, abs=0.6)


def test_level_and_zeros_change_nothing_and_silence_is_unknown():
    x = mixture(15.0)
    plain = wada_snr(x)
    assert wada_snr(x * 0.01) == pytest.approx(plain, abs=1e-3)
    assert wada_snr(np.r_[x, np.zeros(len(x) // 9, np.float32)]) == pytest.approx(plain, abs=1e-3)
    assert np.isnan(wada_snr(np.zeros(100, np.float32)))


def test_noise_lowers_it(utterance):
    clean = torch.from_numpy(mixture(60.0, 2 * RATE)) * 0.05
    noisy = clean + 0.02 * torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    metric = WadaSNR()
    assert metric.score(clean, RATE, utterance) > metric.score(noisy, RATE, utterance) + 10
