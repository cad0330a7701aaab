"""Features of large sets: made when they are drawn, kept, the same as those made before."""

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ttsadapt.backbones.base import TARGET
from ttsadapt.data import manifest
from ttsadapt.data.features import Features, FeatureSet
from ttsadapt.data.module import AdaptationData
from ttsadapt.data.ondemand import OnDemand
from ttsadapt.data.pcm import write_wav
from ttsadapt.data.sampling import StepSampler
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError, TooLong


class Counting:
    """Frames of 10 ms; remembers what it was asked for; collates with random numbers."""

    def __init__(self, longest=10_000):
        self.asked, self.longest = [], longest

    def __call__(self, utterance):
        self.asked.append(utterance.id)
        frames = round(utterance.duration * 100)
        if frames > self.longest:
            raise TooLong(f"{utterance.id} is too long")
        return {"mel": torch.full((frames, 2), float(utterance.id)), "speaker": torch.zeros(1)}

    def lengths(self, features):
        return {"frames": len(features["mel"]), "phones": len(features["mel"]) // 5}

    def collate(self, items):
        return {"speaker": torch.stack([i["speaker"] for i in items]), "seen": torch.rand(len(items)), "all": [i["mel"] for i in items]}


def utterances(count):
    seconds = np.random.default_rng(0).uniform(0.5, 3.0, count).round(2)
    return [Utterance(str(i), Path("none.wav"), "", f"s{i % 3}", duration=float(s)) for i, s in enumerate(seconds)]


def made(tmp_path, frontend, count=120):
    return OnDemand(tmp_path / "features", frontend, utterances(count), TARGET)


def test_nothing_is_made_before_it_is_drawn_and_nothing_twice(tmp_path):
    frontend = Counting()
    features = made(tmp_path, frontend)
    sampler = StepSampler(features, frames=1500, seed=0)
    step = next(iter(sampler))
    probed = set(frontend.asked) - {i for _, i in step.rows}
    assert 0 < len(probed) <= 20 and len(frontend.asked) == len(set(frontend.asked)) < 60
    before = len(frontend.asked)
    features.collate([i for _, i in step.rows])
    again = made(tmp_path, frontend)
    assert next(iter(StepSampler(again, frames=1500, seed=0))) == step and len(frontend.asked) == before
    assert pickle.loads(pickle.dumps(again))[step.rows[0][1]]["mel"][0, 0] == float(step.rows[0][1])


def test_the_stream_is_that_of_features_made_before(tmp_path):
    frontend = Counting()
    Features(tmp_path / "all", frontend, utterances(120), "all").produce()
    eager = FeatureSet(tmp_path / "all", frontend, utterances(120), TARGET)
    lazy = made(tmp_path, frontend)
    assert lazy.frames == eager.frames and dict(lazy.lengths) == eager.lengths
    assert list(StepSampler(lazy, frames=1500, seed=3)) == list(StepSampler(eager, frames=1500, seed=3))
    for i in eager.ids:
        assert torch.equal(lazy[i]["mel"], eager[i]["mel"])


def test_what_is_too_long_is_left_out_of_its_step(tmp_path):
    frontend = Counting(longest=250)
    features = made(tmp_path, frontend)
    long = {u.id for u in utterances(120) if round(u.duration * 100) > 250}
    sampler = StepSampler(features, frames=1500, seed=0)
    drawn = {i for step in sampler for _, i in step.rows}
    assert long and drawn == set(features.ids) - long
    with pytest.raises(TooLong):
        features[min(long)]
    with pytest.raises(DataError, match="no utterance of"):
        _ = OnDemand(tmp_path / "none", Counting(longest=1), utterances(5), TARGET).frames


def test_a_file_that_was_cut_short_is_made_again(tmp_path):
    frontend = Counting()
    features = made(tmp_path, frontend)
    wanted = features["7"]["mel"]
    (place,) = (tmp_path / "features").rglob("*.safetensors")
    place.write_bytes(place.read_bytes()[:20])
    assert torch.equal(made(tmp_path, frontend)["7"]["mel"], wanted) and frontend.asked == ["7", "7"]


def test_validation_is_the_same_every_time(tmp_path):
    data = AdaptationData(made(tmp_path, Counting()), None, {"target": made(tmp_path, Counting())}, None, 1500, 0)
    first, second = ([batch["seen"] for batch in data.val_dataloader()[0]] for _ in range(2))
    assert len(first) > 5 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sum(len(seen) for seen in first) == 120


# -- manifests


def test_phones_are_read_when_they_are_asked_for(tmp_path):
    phones = (Phone("_", 0.0, 0.1), Phone('ˈa"]]}\\', 0.1, 0.25), Phone("b", 0.25, 0.5))
    write_wav(tmp_path / "a.wav", np.full(8000, 0.1, np.float32), 16000)
    text = 'He wrote: "alignment": {"phone": [["x", 0, 1, null]]}.'
    wanted = Utterance("a", tmp_path.resolve() / "a.wav", text, "eve", duration=0.5, phones=phones, hash="1f")
    manifest.write([wanted], tmp_path, "target.train")
    (read,) = manifest.read(tmp_path, "target.train")
    assert isinstance(vars(read)["phones"], manifest.Deferred)
    assert read.phones == phones and read == wanted and wanted == read and hash(read) == hash(wanted)
    again = pickle.loads(pickle.dumps(read))
    assert isinstance(vars(again)["phones"], manifest.Deferred) and again == wanted
    assert read != Utterance("a", wanted.audio, text, "eve")


@pytest.mark.parametrize("place", ["../b.wav", "/etc/b.wav", "sub/../../b.wav", "..", "link.wav", "away/b.wav"])
def test_audio_outside_the_folder_is_refused(tmp_path, place):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "b.wav").write_bytes(b"")
    (inner / "link.wav").symlink_to(tmp_path / "b.wav")
    (inner / "away").symlink_to(tmp_path)
    write_wav(inner / "a.wav", np.full(800, 0.1, np.float32), 16000)
    manifest.write([Utterance("a", inner / "a.wav", "A.", "eve")], inner, "target.train")
    path = inner / "target.train.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"a.wav"', f'"{place}"'.encode())))
    with pytest.raises(DataError, match=r"line 1: .* lies outside"):
        manifest.read(inner, "target.train")


@pytest.mark.slow
def test_a_hundred_thousand_utterances_open_and_start_within_limits(tmp_path):
    """`ttsadapt bench bench=prepare` has the figures; this is the limit, in CPU seconds and in a process of its own."""
    command = [sys.executable, "-m", "ttsadapt.bench.opening", str(tmp_path), "100000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["cpu"] <= 10 and figures["resident_gib"] <= 1.5, figures


def test_ranks_begin_with_their_own_part_of_a_step(tmp_path):
    asked = []
    for rank in (0, 1):
        frontend = Counting()
        features = made(tmp_path / str(rank), frontend)
        assert features.frames
        probed = len(frontend.asked)
        assert next(iter(StepSampler(features, 1500, 0, rank=rank, ranks=2))).rows
        asked.append(frontend.asked[probed:])
    assert sorted(asked[0]) == sorted(asked[1]) and len(set(asked[0])) == len(asked[0]) >= 4
    half = (len(asked[0]) - 1) // 2
    assert not {*asked[0][:half]} & {*asked[1][:half]}
