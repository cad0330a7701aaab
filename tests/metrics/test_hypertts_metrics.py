"""The figures of HyperTTS's tables: on its own recordings, and on signals whose error is known."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.ffe import F0FrameError, frame_error, yin
from ttsadapt.metrics.hypertts_mcd import HyperTTSDistortion, accumulated, cepstrum

GOLDEN = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[2] / "../shared/golden"))
SAMPLES = GOLDEN / "hypertts/samples"
REFERENCE = "reference_GT"
ROW = re.compile(r"\| (\w[\w-]*) \|[^|]*\| [\d.]+ \| ([\d.]+) \| \**([\d.]+)\** \|")
"""a line of README.md: folder, system, seconds, FFE, MCD"""


def systems() -> dict[str, tuple[float, float]]:
    readme = GOLDEN / "README.md"
    return {name: (float(ffe), float(mcd)) for name, ffe, mcd in ROW.findall(readme.read_text())} if readme.is_file() else {}


@pytest.mark.golden
@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no golden files: there is no folder {SAMPLES} (TTSADAPT_GOLDEN)")
@pytest.mark.parametrize("system", systems() or [REFERENCE])
def test_released_recordings_score_as_measured(system):
    expected, metrics = systems()[system], (F0FrameError(), HyperTTSDistortion())
    for path in sorted((SAMPLES / system).iterdir()):
        audio, rate = soundfile.read(path, dtype="float32")
        for metric in metrics:
            metric.update(torch.from_numpy(audio), rate, Utterance(path.stem, SAMPLES / REFERENCE / path.name, "", "x"))
    assert metrics[0].compute().item() == pytest.approx(expected[0], abs=0.1)
    assert metrics[1].compute().item() == pytest.approx(expected[1], abs=0.01)


def buzz(hertz: float, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    return sum(0.2 * np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 8)).astype(np.float32)


@pytest.mark.parametrize("hertz", [110.0, 220.0, 400.0])
def test_yin_hears_the_pitch(hertz):
    found = yin(buzz(hertz))
    assert np.abs(found / hertz - 1).max() < 0.02
    assert not yin(np.random.default_rng(0).standard_normal(8000).astype(np.float32)).any()


def test_frames_count_as_defined():
    wanted, got = np.array([100.0, 100.0, 0.0, 0.0, 100.0]), np.array([119.0, 121.0, 0.0, 90.0, 0.0])
    assert frame_error(wanted, got) == pytest.approx(3 / 5)


def test_a_recording_against_itself(tmp_path):
    soundfile.write(tmp_path / "a.wav", buzz(200.0), 16000, subtype="FLOAT")
    utterance = Utterance("a", tmp_path / "a.wav", "", "x")
    same = torch.from_numpy(buzz(200.0))
    assert F0FrameError().score(same, 16000, utterance) == 0
    assert F0FrameError().score(torch.from_numpy(buzz(300.0)), 16000, utterance) == 100
    assert F0FrameError().score(torch.zeros(100), 16000, Utterance("b", tmp_path / "a.wav", "", "x")) > 90
    other = HyperTTSDistortion().score(torch.from_numpy(buzz(300.0)), 16000, utterance)
    assert 0 < HyperTTSDistortion().score(same, 16000, utterance) < other


def test_costs_are_accumulated():
    """Two frames against two: the matrix of least costs, by hand."""
    wanted, got = np.array([[0.0], [1.0]]), np.array([[0.0], [3.0]])
    decibel = 10 * np.sqrt(2) / np.log(10)
    assert accumulated(wanted, got) == pytest.approx(decibel * (0 + 3 + 1 + 2) / 4)
    assert cepstrum(torch.from_numpy(buzz(150.0))).shape == (101, 25)
