import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sounds import said, voice

from ttsadapt.metrics import world
from ttsadapt.metrics.f0 import F0Correlation, F0Error
from ttsadapt.metrics.mcd import MelCepstralDistortion
from ttsadapt.metrics.parallel import compare
from ttsadapt.metrics.rate import DurationError
from ttsadapt.metrics.signal import RATE, speech, trimmed


def scored(metric, audio, utterance, rate=RATE):
    return metric.score(torch.as_tensor(audio), rate, utterance)


def test_recording_against_itself_is_perfect(utterance):
    audio = voice(110.0)
    stored = torch.from_numpy(np.round(audio * 32768).astype(np.int16) / np.float32(32768))
    assert scored(MelCepstralDistortion(), stored, utterance) == pytest.approx(0, abs=1e-6)
    assert scored(F0Error(), stored, utterance) == pytest.approx(0, abs=1e-6)
    assert scored(F0Correlation(), stored, utterance) == pytest.approx(100, abs=1e-6)
    assert scored(DurationError(), stored, utterance) == 0


def test_an_octave_is_1200_cents_and_keeps_its_shape(utterance):
    octave = voice(220.0)
    assert scored(F0Error(), octave, utterance) == pytest.approx(1200, abs=25)
    assert scored(F0Correlation(), octave, utterance) > 90


def test_mcd_grows_with_the_distance_of_the_formants(utterance):
    near, far = (scored(MelCepstralDistortion(), voice(110.0, brightness=b), utterance) for b in (1.05, 1.3))
    assert 0 < near < far


def test_mcd_of_a_gain_is_zero(utterance):
    """c0 is left out, and level is what it holds."""
    assert scored(MelCepstralDistortion(), 0.5 * voice(110.0), utterance) < 0.2


def test_time_stretch_costs_rate_but_little_mcd(utterance):
    slow = voice(110.0, seconds=0.3)
    assert scored(DurationError(), slow, utterance) == pytest.approx(100 * math.log(1.2), abs=2)
    assert scored(MelCepstralDistortion(), slow, utterance) < scored(MelCepstralDistortion(), voice(110.0, "uiai"), utterance) / 2


def test_other_sample_rates_are_resampled(utterance):
    from ttsadapt.data.pcm import resample

    assert scored(F0Error(), resample(voice(220.0), RATE, 22050), utterance, rate=22050) == pytest.approx(1200, abs=25)


@pytest.mark.parametrize("metric", [MelCepstralDistortion, F0Error, F0Correlation, DurationError])
def test_silence_and_nothing_are_nan(metric, utterance):
    for audio in (torch.zeros(RATE), torch.zeros(0)):
        assert math.isnan(scored(metric(), audio, utterance))


def test_unvoiced_clip_has_no_f0(utterance):
    noise = 0.05 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert math.isnan(scored(F0Error(), noise, utterance))
    assert not math.isnan(scored(MelCepstralDistortion(), noise, utterance))


def naive_path(cost):
    total = np.full(cost.shape, np.inf)
    total[0, 0] = cost[0, 0]
    back = {}
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            steps = [(i - 1, j - 1), (i, j - 1), (i - 1, j)]
            steps = [s for s in steps if min(s) >= 0]
            if steps:
                back[i, j] = min(steps, key=lambda s: total[s])
                total[i, j] = total[back[i, j]] + cost[i, j]
    path = [(cost.shape[0] - 1, cost.shape[1] - 1)]
    while path[-1] in back:
        path.append(back[path[-1]])
    return path[::-1]


def test_distance_is_the_mean_over_the_path_of_a_naive_dtw():
    rng = np.random.default_rng(1)
    one, two = (world.Analysis(rng.standard_normal((n, 25)), np.full(n, 100.0)) for n in (13, 17))
    cost = cdist(one.cepstrum[:, 1:], two.cepstrum[:, 1:])
    wanted = [cost[p] for p in naive_path(cost)]
    found = compare(one, two)
    assert found.distance.mean() == pytest.approx(np.mean(wanted))
    assert len(found.distance) == len(wanted)


def test_mel_cepstrum_gives_back_its_envelope():
    """Without warping, evaluating the cosine series returns ln|H|; with warping, at the warped frequencies."""
    size, order = 513, 24
    frequency = np.linspace(0, np.pi, size)
    truth = np.array([0.3, 0.5, -0.2, 0.1])
    amplitude = sum(c * np.cos(k * frequency) for k, c in enumerate(truth))
    power = np.exp(2 * amplitude)[None]
    plain = world.mel_cepstrum(power, order, 0.0)[0]
    assert np.allclose(plain[:4], truth, atol=1e-9) and np.allclose(plain[4:], 0, atol=1e-9)
    warped = world.mel_cepstrum(power, 60, world.ALPHA)[0]
    bent = frequency + 2 * np.arctan2(world.ALPHA * np.sin(frequency), 1 - world.ALPHA * np.cos(frequency))
    assert np.allclose(sum(c * np.cos(k * bent) for k, c in enumerate(warped)), amplitude, atol=1e-6)


def test_trim_finds_the_speech():
    start, end = speech(torch.from_numpy(voice(110.0, silence=0.5)))
    assert start / RATE == pytest.approx(0.48, abs=0.03)
    assert end / RATE == pytest.approx(1.52, abs=0.03)
    assert len(trimmed(torch.zeros(RATE))) == 0


def test_analysis_of_a_recording_is_kept(utterance, tmp_path, monkeypatch):
    metric = MelCepstralDistortion()
    metric.open(tmp_path, tmp_path / "cache")
    first = scored(metric, voice(150.0), utterance)
    assert len(list((tmp_path / "cache" / "world").glob("*.safetensors"))) == 1
    world.of_recording.cache_clear()
    world.of_samples.cache_clear()
    from ttsadapt.metrics import parallel

    parallel._compared.cache_clear()
    monkeypatch.setattr(world, "recording", lambda path: pytest.fail("analysed again"))
    assert scored(metric, voice(150.0), utterance) == first


def test_recordings_of_one_name_in_two_folders_are_kept_apart(tmp_path):
    metric = MelCepstralDistortion()
    metric.open(tmp_path, tmp_path / "cache")
    one, two = said(tmp_path / "a", "x", voice(110.0)), said(tmp_path / "b", "x", voice(110.0, "uiai"))
    assert scored(metric, voice(110.0), one) < scored(metric, voice(110.0), two)
