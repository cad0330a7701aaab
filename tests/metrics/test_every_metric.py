"""What every metric of conf/metric must do: keep to its bounds and its declared invariances, and give the same number twice.

A new metric is found by itself; judges are trained for a few steps, released models are a few thousand random weights.
"""

import math
import sys
from functools import lru_cache
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sounds import phones_at, said, voice
from test_judges import write_corpus

from ttsadapt.artifacts import ensure
from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.metrics.signal import RATE

FILES = sorted(p.stem for p in (paths.conf() / "metric").glob("*.yaml"))
RELEASED = {
    "ecapa": models.ecapa, "wavlm_sv": models.xvector, "emotion_iemocap": models.emotions, "wer": models.ctc, "cer": models.ctc,
    "terms": models.ctc,
}  # fmt: skip
"""of a metric's file, what writes a model for it"""
COSTLY = {"dnsmos", "dnsmos_parts"}
EACH = [pytest.param(name, marks=[pytest.mark.slow] if name in COSTLY else []) for name in FILES]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    write_corpus(folder / "corpus")
    return folder


def overrides(name: str, place: Path) -> list[str]:
    found = [f"metric=[{name}]"]
    if name in RELEASED:
        folder = place / f"{name}-model"
        if not folder.exists():
            RELEASED[name](folder)
        key = "recogniser.path" if RELEASED[name] is models.ctc else "path"
        found.append(f"metric.{name}.{key}={folder}")
    return [*found, *(["metric.terms.words=[low]"] if name == "terms" else [])]


@lru_cache(maxsize=64)
def metrics(name: str, place: Path):
    """Of one file, opened; {} when the models of all of them are missing here."""
    cfg = composed(*overrides(name, place))
    for node in cfg.metric.values():
        if "steps" in node:
            node.steps = 2
    found = {key: instantiate(node) for key, node in cfg.metric.items()}
    if lacking := [line for metric in found.values() if (line := metric.missing())]:
        pytest.skip(lacking[0])
    for metric in found.values():
        ensure(*metric.needs(place / "corpus", place / "cache"))
        metric.open(place / "corpus", place / "cache")
    for module in list(sys.modules.values()):  # hypothesis asks every module for its file, and speechbrain's lazy ones then fail to load
        if "LazyModule" in (kind.__name__ for kind in type(module).__mro__):
            vars(module).setdefault("__file__", None)
    return found


def utterance(place: Path):
    about = {"text": "how low the old sailor sat", "speaker": "low", "emotion": "neutral", "phones": phones_at("aiu")}
    path = place / "recorded"
    if not (path / "said.wav").is_file():
        said(path, "said", voice(110.0, "aiua"), **about)
    return said(path, "said", voice(110.0, "aiua"), **about)


def clip(gain=1.0, silence=0, shift=0, f0=125.0):
    """Of whole numbers of sixteen bits, as every clip on disk is."""
    audio = np.pad(voice(f0, "aiia") * gain, (silence * RATE // 100 + shift, silence * RATE // 100))
    return torch.from_numpy(np.round(audio * 32767).astype(np.float32) / 32768)


@pytest.mark.parametrize("name", EACH)
def test_a_metric_says_what_it_is(name, place):
    for key, metric in metrics(name, place).items():
        assert metric.better in ("lower", "higher", "near reference") and metric.unit
        assert key.startswith(type(metric).name) or type(metric).name in key
        assert isinstance(metric.model, str) and metric.model and isinstance(metric.revision, str) and metric.revision
        assert set(metric.steady) <= {"gain", "silence", "shift"} and metric.bounds[0] < metric.bounds[1]
        file = Path(__import__(type(metric).__module__, fromlist=["x"]).__file__).read_text()
        assert file.startswith('"""'), "the source of its definition"


SEEN = settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", EACH)
def test_bounds_silence_and_the_same_twice(name, place):
    about = utterance(place)

    @SEEN
    @given(f0=st.floats(90, 250), gain=st.floats(0.05, 1.5))
    def holds(f0, gain):
        for metric in metrics(name, place).values():
            audio = clip(gain, f0=f0)
            found = metric.score(audio, RATE, about)
            low, high = metric.bounds
            assert math.isnan(found) or low - 1e-4 <= found <= high + 1e-4, found
            again = metric.score(audio.clone(), RATE, about)
            assert found == again or (math.isnan(found) and math.isnan(again))

    holds()
    for metric in metrics(name, place).values():
        for nothing in (torch.zeros(RATE), torch.zeros(0)):
            found = metric.score(nothing, RATE, about)
            assert not math.isinf(found)
            if math.isnan(found):
                metric.latest = found
                assert metric.why, "a value that is none says why"


CHANGES = {
    "gain": st.fixed_dictionaries({"gain": st.floats(0.1, 1.2)}),
    "silence": st.fixed_dictionaries({"silence": st.integers(1, 80)}),
    "shift": st.fixed_dictionaries({"shift": st.integers(1, RATE // 100)}),
}


@pytest.mark.parametrize("name", EACH)
def test_what_must_not_move_a_metric(name, place):
    for kind, change in CHANGES.items():
        unmoved(kind, change, {key: m for key, m in metrics(name, place).items() if kind in m.steady}, utterance(place))


def unmoved(kind, change, steady, about):
    plain = {key: m.score(clip(), RATE, about) for key, m in steady.items()}

    @SEEN
    @given(change)
    def holds(changed):
        for key, metric in steady.items():
            found = metric.score(clip(**changed), RATE, about)
            assert math.isfinite(plain[key]), f"{key} has no value on a clip like any other"
            assert abs(found - plain[key]) <= metric.steady[kind], f"{key} under {changed}: {plain[key]} became {found}"

    if steady:
        holds()
