"""Clips of several seeds, what was cut, and times: from a backbone that hums."""

import time

import pytest
import torch
from omegaconf import OmegaConf
from sounds import said, voice
from torch import nn

from ttsadapt.backbones.base import Backbone, Request
from ttsadapt.backbones.ending import tell, watched
from ttsadapt.backbones.knobs import Knob
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import summarise
from ttsadapt.metrics.capped import Capped
from ttsadapt.metrics.sidecar import NAME, facts
from ttsadapt.metrics.silence import SilenceShare
from ttsadapt.metrics.timing import FirstAudio, Latency, RealTimeFactor
from ttsadapt.scoring import spoken_scores
from ttsadapt.speaking import clock, speak
from ttsadapt.sweeping import Sweep


class Humming(nn.Module):
    """Says a second for each word, at most two, of a loudness that its seed decides; it takes a hundredth of a second for each."""

    sample_rate = 16000
    stream = Backbone.stream

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.1))
        self.frontend = self
        self.asked, self.loudness, self.knobs = 0, 1.0, {"loudness": Knob("loudness")}

    def request(self, utterance):
        return Request(utterance.id, tuple(utterance.text.split()), torch.zeros(1))

    def synthesize(self, requests, progress=None):
        self.asked += 1
        said = [min(len(r.phones), 2) for r in requests]
        tell(requests, [len(r.phones) for r in requests], [3] * len(requests))
        time.sleep(0.01 * sum(said))
        return [
            (self.level.detach() * self.loudness * (1 + r.seed)) * torch.sin(torch.arange(16000 * n) * 0.1) for r, n in zip(requests, said)
        ]


class Streaming(Humming):
    def stream(self, request):
        for piece in self.synthesize([request])[0].split(4000):
            time.sleep(0.01)
            yield piece


@pytest.fixture
def utterances(tmp_path):
    return [said(tmp_path / "rec", f"u{i}", voice(110.0), text=" ".join("abcd"[: i + 1])) for i in range(3)]


class Corpus:
    def __init__(self, folder):
        self.corpus, self.cache = self, folder
        self.folder = self.judged = folder
        self.cfg = OmegaConf.create({"evaluation": {"seeds": [5, 9]}})


def test_a_clip_and_a_row_for_every_seed(utterances, tmp_path):
    model, metrics = Humming(), {"silence": SilenceShare(), "capped": Capped()}
    rows = spoken_scores(model, utterances, tmp_path / "wavs", "target", metrics, [5, 7], Corpus(tmp_path))
    assert sorted(p.name for p in (tmp_path / "wavs").glob("*.wav")) == sorted(f"u{i}{s}.wav" for i in range(3) for s in ("", "--s7"))
    named = [(r["utterance"], r["seed"]) for r in rows if r["metric"] == "capped"]
    assert named[:4] == [("u0", "5"), ("u1", "5"), ("u2", "5"), ("u0--s7", "7")]
    found = summarise(rows)["sets"]["target"]["capped"]
    assert found["mean"] == pytest.approx(100 / 3) and found["n"] == 3 and found["seeds"] == 2 and found["seed_deviation"] == 0
    for seeds in ([], [1, 1]):
        with pytest.raises(ConfigError, match=r"evaluation.seeds=.*: give at least one seed, each once"):
            spoken_scores(model, utterances, tmp_path / "none", "target", metrics, seeds, Corpus(tmp_path))


def test_times_are_of_requests_on_their_own(utterances, tmp_path):
    model = Humming()
    metrics = {"rtf": RealTimeFactor(limit=2), "latency": Latency(limit=2), "first_audio": FirstAudio(limit=2)}
    rows = spoken_scores(model, utterances, tmp_path, "target", metrics, [0, 1], Corpus(tmp_path))
    assert model.asked == 1 + 3 + 1  # the set, one to warm up and two on their own, the second seed's set
    found = {m: [r["value"] for r in rows if r["metric"] == m] for m in metrics}
    assert all(len(values) == 2 for values in found.values())
    assert found["latency"] == found["first_audio"] and all(0.01 <= v < 1 for v in found["latency"])
    assert all(0.01 <= v < 1 for v in found["rtf"])
    assert all("not streamed: equal to latency" in r["model"] for r in rows if r["metric"] == "first_audio")
    assert facts(tmp_path)["u2"]["capped"] == "1" and facts(tmp_path)["u0"]["capped"] == "0"


def test_a_model_that_streams_is_timed_to_its_first_piece(utterances, tmp_path):
    model = Streaming()
    speak(model, utterances, tmp_path, "t")
    clock(model, utterances, tmp_path)
    told = facts(tmp_path)["u1"]
    assert told["streamed"] == "1" and float(told["first_audio"]) < float(told["seconds"]) - 0.05
    assert float(told["duration"]) == pytest.approx(2.0)


def test_what_was_cut_reaches_whoever_listens_only():
    requests = [Request(str(i), (), torch.zeros(1)) for i in range(3)]
    tell(requests, [1, 2, 3], [2, 2, 2])
    with watched() as outer:
        with watched() as inner:
            tell(requests, [1, 2, 3], [2, 2, 2])
        tell(requests[:1], [9], [9])
    assert inner == {"1", "2"} and outer == {"0"}


def test_recordings_have_no_times(utterances, tmp_path):
    from ttsadapt.evaluation import score_set

    plain = {u.id: u.audio for u in utterances}
    assert score_set({"rtf": RealTimeFactor()}, "recordings/target", plain, utterances, tmp_path, tmp_path) == []
    (tmp_path / "rec" / NAME).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"speaking.csv has no column"):
        score_set({"rtf": RealTimeFactor()}, "target", plain, utterances, tmp_path, tmp_path)


@pytest.fixture
def swept(utterances, tmp_path):
    """Sweeps over one other loudness with two seeds, the first of them 5; gives the rows."""
    data, model = Corpus(tmp_path), Humming()
    data.utterances = lambda _: utterances

    def go():
        metrics = {"silence": SilenceShare(), "rtf": RealTimeFactor(limit=2), "capped": Capped()}
        sweep = Sweep(data, model, metrics, "target.valid", None, tmp_path / "run")
        sweep.run([{"loudness": 0.5}], 2)
        return sweep.rows

    return go, model


def test_settings_are_timed_too(swept, tmp_path):
    from ttsadapt.reports.decoded import read

    go, model = swept
    rows = go()
    assert model.asked == 2 * (2 + 1 + 2)  # each setting: a set a seed, one to warm up and two against the clock
    found = {m: [(r["setting"], r["seed"], r["value"]) for r in rows if r["metric"] == m] for m in ("rtf", "capped", "silence")}
    assert {(seed, float(value) > 0) for _, seed, value in found["rtf"]} == {("5", True)} and len(found["rtf"]) == 2 * 2
    assert [float(value) for _, _, value in found["capped"]] == [0, 0, 100] * 4 and len(found["silence"]) == 4 * 3 + 3
    assert go() == rows and model.asked == 10  # a time that was taken is not taken again
    (decoded,) = read(tmp_path / "run" / "decoding.csv")
    cut = decoded.estimate(decoded.default, "capped")
    assert cut.n == 3 and cut.low == pytest.approx(6.15, abs=0.01)  # Wilson's for 1 of 3


def test_a_sweep_that_was_killed_before_it_noted_what_it_said_says_it_again(swept, monkeypatch):
    from ttsadapt import speaking

    def killed(*_):
        raise KeyboardInterrupt

    go, _ = swept
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(speaking, "note", killed)
        go()
    assert all(float(r["value"]) >= 0 for r in go() if r["metric"] == "capped")
