"""Pauses, rates, levels and melody of signals whose figures are known, and what must not change them."""

import numpy as np
import pytest
import torch
from sounds import phones_at, said, voice

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.f0_variation import F0Variation
from ttsadapt.metrics.levels import HOP, EnergyRange, levels
from ttsadapt.metrics.pauses import ArticulationRate, PauseShare, pauses
from ttsadapt.metrics.signal import RATE
from ttsadapt.text.syllables import is_nucleus, syllables


def tone(*parts: tuple[float, float]) -> torch.Tensor:
    """(seconds, amplitude) one after the other, of 200 Hz."""
    sizes = [round(seconds * RATE) for seconds, _ in parts]
    gain = torch.cat([torch.full((n,), a) for n, (_, a) in zip(sizes, parts)])
    return gain * torch.sin(2 * torch.pi * 200 * torch.arange(sum(sizes)) / RATE)


def test_pauses_are_long_gaps_inside():
    level = np.full(300, -100.0)
    for first, last in ((20, 100), (140, 200), (210, 280)):  # a gap of 0.4 s, one of 0.1 s
        level[first:last] = -20.0
    lengths, whole = pauses(level, 25.0, 0.2)
    assert lengths == pytest.approx([40 * HOP]) and whole == pytest.approx(260 * HOP)
    assert pauses(level, 25.0, 0.05)[0] == pytest.approx([40 * HOP, 10 * HOP])
    assert pauses(np.zeros(0), 25.0, 0.2)[1] == 0.0


def test_the_share_of_a_pause_that_was_put_there(utterance):
    audio = tone((0.3, 0.0), (1.0, 0.3), (0.5, 0.0), (1.0, 0.3), (0.2, 0.0))
    share = PauseShare().score(audio, RATE, utterance)
    assert share == pytest.approx(20.0, abs=1.5)
    assert PauseShare().score(audio * 0.01, RATE, utterance) == pytest.approx(share, abs=0.2)
    assert PauseShare().score(tone((2.0, 0.3)), RATE, utterance) == 0.0
    assert np.isnan(PauseShare().score(torch.zeros(RATE), RATE, utterance))


def test_articulation_leaves_pauses_out(tmp_path):
    spoken = said(tmp_path, "four", voice(120.0), phones=phones_at("aiua"))
    whole = tone((1.0, 0.3))
    paused = tone((0.5, 0.3), (0.6, 0.0), (0.5, 0.3))
    rates = [ArticulationRate().score(audio, RATE, spoken) for audio in (whole, paused, tone((2.0, 0.3)))]
    assert rates[0] == pytest.approx(4.0, rel=0.05)
    assert rates[1] == pytest.approx(4.0, rel=0.1)
    assert rates[2] == pytest.approx(2.0, rel=0.05)


def test_syllables_are_vowels_and_syllabic_consonants(tmp_path):
    assert [is_nucleus(s) for s in ("ˈaɪ", "ə", "ˌɔːɹ", "n̩", "t", "_", "ɹ", "ɚ")] == [True, True, True, True, False, False, False, True]
    by_text = Utterance("u", tmp_path / "u.wav", "a very happy potato", "one", duration=1.0)
    assert syllables(by_text) == 8


def test_energy_range_of_two_levels_whatever_the_gain(utterance):
    audio = tone((1.0, 0.3), (1.0, 0.03))
    found = EnergyRange().score(audio, RATE, utterance)
    assert found == pytest.approx(20.0, abs=0.5)
    assert EnergyRange().score(audio * 0.1, RATE, utterance) == pytest.approx(found, abs=0.1)
    assert EnergyRange().score(tone((1.0, 0.3)), RATE, utterance) < 1.0
    assert np.isnan(EnergyRange().score(torch.zeros(RATE), RATE, utterance))
    assert levels(tone((1.0, 0.5))).mean() == pytest.approx(10 * np.log10(0.125), abs=0.1)


def test_f0_variation_is_of_the_melody_not_of_the_height(utterance):
    low, high = (F0Variation().score(torch.from_numpy(voice(f0)), RATE, utterance) for f0 in (110.0, 220.0))
    wanted = 12 * np.log2(1 + 0.1 * np.sin(np.linspace(0, 3 * np.pi, 1000))).std()  # the glide of `voice`: 1.5 Hz for a second
    assert low == pytest.approx(wanted, rel=0.15) and high == pytest.approx(low, rel=0.1)
    assert np.isnan(F0Variation().score(torch.zeros(RATE), RATE, utterance))
