"""Pitch and distances against what is known by construction, and against other implementations."""

import math

import librosa
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sounds import said, voice

from ttsadapt.data.espeak import RATE as THEIRS
from ttsadapt.data.espeak import engine
from ttsadapt.data.pcm import resample
from ttsadapt.metrics import world
from ttsadapt.metrics.duration_ratio import DurationRatio
from ttsadapt.metrics.energy_profile import EnergyProfile, contour
from ttsadapt.metrics.f0 import F0Error
from ttsadapt.metrics.ffe import yin
from ttsadapt.metrics.mcd import MelCepstralDistortion
from ttsadapt.metrics.signal import RATE, trimmed
from ttsadapt.metrics.silence import Clipping, SilenceShare
from ttsadapt.metrics.voicing import AlignedF0FrameError, GrossPitchError, VoicingDecisionError

TEXT = "The old sailor was rowing our yellow boat along the river in May."


def monotone(hertz: int) -> np.ndarray:
    pcm = engine().say(TEXT, "en-us", constant_f0=hertz).pcm
    return resample(pcm.astype(np.float32) / 32768, THEIRS, RATE)


@pytest.mark.parametrize("hertz", [105, 140, 200])
def test_both_trackers_hear_espeak_s_constant_pitch(hertz):
    pytest.importorskip("espeakng_loader")
    audio = monotone(hertz)
    f0 = world.analyse(trimmed(torch.from_numpy(audio)).numpy()).f0
    voiced = f0[f0 > 0]
    assert len(voiced) > 100 and np.median(voiced) == pytest.approx(hertz, rel=0.01)
    assert np.mean(np.abs(voiced / hertz - 1) < 0.05) > 0.9
    other = yin(audio)
    assert np.median(other[other > 0]) == pytest.approx(hertz, rel=0.02)


def test_f0_metrics_of_two_known_pitches(tmp_path):
    pytest.importorskip("espeakng_loader")
    utterance = said(tmp_path, "low", monotone(120))
    near, far = (torch.from_numpy(monotone(hertz)) for hertz in (132, 160))
    assert F0Error().score(near, RATE, utterance) == pytest.approx(1200 * math.log2(1.1), rel=0.15)
    assert F0Error().score(far, RATE, utterance) == pytest.approx(1200 * math.log2(4 / 3), rel=0.15)
    assert GrossPitchError().score(near, RATE, utterance) < 10 and GrossPitchError().score(far, RATE, utterance) > 85
    wrong, frame = (kind().score(far, RATE, utterance) for kind in (VoicingDecisionError, AlignedF0FrameError))
    assert wrong < 20 and frame > wrong


def test_world_agrees_with_librosa_s_yin():
    audio = trimmed(torch.from_numpy(voice(130.0))).numpy()
    ours = world.analyse(audio).f0
    theirs = librosa.yin(audio, sr=RATE, fmin=60, fmax=600, frame_length=1024, hop_length=80)
    size = min(len(ours), len(theirs))
    voiced = ours[:size] > 0
    assert voiced.mean() > 0.7 and np.median(np.abs(1200 * np.log2(ours[:size][voiced] / theirs[:size][voiced]))) < 25


def test_mcd_against_its_formula_written_again(tmp_path):
    """From the cepstra on: a dynamic programme over plain lists, the mean over its path, 10 sqrt(2) / ln 10."""
    utterance, audio = said(tmp_path, "u", voice(110.0, "ai")), voice(120.0, "ia")
    stored = np.round(voice(110.0, "ai") * 32768).astype(np.int16).astype(np.float32) / 32768
    wanted, got = (world.analyse(trimmed(torch.from_numpy(a)).numpy()).cepstrum[:, 1:] for a in (stored, audio))
    cost = cdist(wanted, got)
    total, length = np.full(cost.shape, np.inf), np.zeros(cost.shape)
    for i, j in np.ndindex(cost.shape):
        before = [(total[p], p) for p in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if min(p) >= 0]
        least, at = min(before, key=lambda b: b[0]) if before else (0.0, None)
        total[i, j], length[i, j] = least + cost[i, j], 1 + (length[at] if at else 0)
    found = MelCepstralDistortion().score(torch.from_numpy(audio), RATE, utterance)
    assert found == pytest.approx(10 * math.sqrt(2) / math.log(10) * total[-1, -1] / length[-1, -1], rel=1e-6)


def test_an_energy_profile_is_the_recording_s_or_not(tmp_path):
    audio = voice(110.0, "aiuaiu")
    swell = np.linspace(0.1, 1.0, len(audio), dtype=np.float32)
    utterance = said(tmp_path, "swell", audio * swell)
    own, other = (EnergyProfile().score(torch.from_numpy(audio * s), RATE, utterance) for s in (0.5 * swell, swell[::-1].copy()))
    assert own == pytest.approx(100, abs=0.5) and other < 70
    assert contour(torch.full((RATE,), 0.3), 50.0)[10:-10] == pytest.approx(0.0, abs=1e-3)


def test_lengths_against_the_recording_and_against_the_rate(tmp_path):
    from ttsadapt.data import manifest

    utterance = said(tmp_path / "w", "slow", voice(110.0), text="a happy potato", speaker="anna")  # six syllables in a second
    slow = torch.from_numpy(voice(110.0, seconds=0.5))
    assert DurationRatio().score(slow, RATE, utterance) == pytest.approx(2.0, rel=0.05)
    manifest.write([utterance], tmp_path, "target.train")
    rate = DurationRatio(expected="rate")
    rate.open(tmp_path, tmp_path)
    other = said(tmp_path / "w", "other", voice(110.0), text="potato", speaker="anna")
    assert rate.score(slow, RATE, other) == pytest.approx(4.0, rel=0.1) and rate.reads and not rate.compares
    assert "nobody has no recordings" in rate.score(slow, RATE, said(tmp_path, "n", voice(110.0), text="a", speaker="nobody")).why


def test_silence_and_clipping_are_counted(utterance, tmp_path):
    tone = 0.5 * torch.sin(torch.arange(RATE) * 0.3)
    assert SilenceShare().score(torch.cat([tone, torch.zeros(RATE)]), RATE, utterance) == pytest.approx(50, abs=2)
    assert Clipping().score((4 * tone).clamp(-1, 1), RATE, utterance) == pytest.approx(100 * (1 - 2 / math.pi * math.asin(0.5)), abs=1)
    metric, other_rate = Clipping(), 22050
    square = np.sign(np.sin(np.arange(other_rate) * 0.1)).astype(np.float32)
    from ttsadapt.data.pcm import write_wav

    write_wav(tmp_path / "square.wav", square, other_rate)
    metric.beside(tmp_path / "square.wav")
    assert metric.score(torch.from_numpy(resample(square, other_rate, RATE)), RATE, utterance) > 99
