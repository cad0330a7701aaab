"""Recordings from anywhere: scored without a run, against a text, an emotion or recordings of the same names."""

import csv
import json

import numpy as np
import pytest
from omegaconf import open_dict
from sounds import said, voice

from ttsadapt.data.pcm import write_wav
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.metrics.signal import RATE
from ttsadapt.wavs import evaluate


@pytest.fixture
def asked(mini, tmp_path):
    """A config over two recordings, one of them with a text; changed by keywords."""
    for name, f0 in (("low", 110.0), ("high", 220.0)):
        said(tmp_path / "wavs", name, voice(f0))
        said(tmp_path / "real", name, voice(f0 * 1.1))
    (tmp_path / "wavs/low.txt").write_text("a happy potato")

    def config(metric, **changes):
        cfg = mini(f"metric=[{metric}]")
        with open_dict(cfg):
            given = {"wavs": str(tmp_path / "wavs"), "references": None, "emotion": None, "language": "en-us", "scores_to": None}
            given |= {"text": None, "speaker": None}
            cfg.update(given | changes)
        return cfg

    return config


def test_what_needs_nothing_is_scored_and_the_rest_named_once(asked, tmp_path, capsys):
    evaluate(asked("mcd,articulation,f0_variation,pauses"))
    told = capsys.readouterr().out
    assert "left out: mcd, which compare" in told and "left out: articulation, which need the text: 1 recordings" in told
    with open(tmp_path / "wavs/scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(r["utterance"], r["metric"]) for r in rows} == {(u, m) for u in ("low", "high") for m in ("f0_variation", "pauses")}
    summary = json.loads((tmp_path / "wavs/scores.json").read_text())
    assert summary["sets"]["wavs"]["f0_variation"]["n"] == 2 and summary["sets"]["wavs"]["f0_variation"]["low"] is not None


def test_references_are_compared_with_and_scored_beside(asked, tmp_path):
    evaluate(asked("f0,mcd", references=str(tmp_path / "real"), emotion="happy", scores_to=str(tmp_path / "out")))
    summary = json.loads((tmp_path / "out/scores.json").read_text())["sets"]
    assert summary["wavs"]["f0"]["mean"] == pytest.approx(1200 * np.log2(1.1), rel=0.1)
    assert summary["recordings/wavs"]["f0"]["mean"] == pytest.approx(0, abs=1)
    with open(tmp_path / "out/scores.csv") as file:
        assert {r["emotion"] for r in csv.DictReader(file) if r["set"] == "wavs"} == {"happy"}
    assert not (tmp_path / "wavs/scores.csv").exists()


def test_the_same_twice_gives_the_same_numbers(asked, tmp_path):
    found = []
    for _ in range(2):
        evaluate(asked("wada_snr,energy_range"))
        found.append((tmp_path / "wavs/scores.csv").read_bytes())
    assert found[0] == found[1]


def test_mistakes_are_one_line(asked, tmp_path):
    with pytest.raises(ConfigError, match=r"metric=\[mcd\]: none of them can be computed"):
        evaluate(asked("mcd"))
    with pytest.raises(DataError, match="no such folder"):
        evaluate(asked("pauses", wavs=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"low.txt is no recording: give one of .wav"):
        evaluate(asked("pauses", wavs=str(tmp_path / "wavs/low.txt")))
    with pytest.raises(ConfigError, match=r"text=... is what one file says"):
        evaluate(asked("pauses", text="a happy potato"))
    write_wav(tmp_path / "wavs/third.wav", voice(150.0), RATE)
    with pytest.raises(DataError, match=r"has no recording 'third' \(1 are missing\)"):
        evaluate(asked("mcd", references=str(tmp_path / "real")))


def test_one_file_against_a_text_and_a_reference(asked, tmp_path, capsys):
    high = str(tmp_path / "wavs/high.wav")
    evaluate(asked("articulation,f0", wavs=high, text="a happy potato", references=str(tmp_path / "real/high.wav")))
    summary = json.loads((tmp_path / "wavs/scores.json").read_text())["sets"]["wavs"]
    assert summary["f0"]["mean"] == pytest.approx(1200 * np.log2(1.1), rel=0.1)
    assert summary["articulation"]["mean"] == pytest.approx(6.0, rel=0.15)  # six syllables in a second
    evaluate(asked("articulation,pauses", wavs=high))
    assert 'left out: articulation, which need the text: 1 recordings have none, give text="..."' in capsys.readouterr().out


def test_without_a_choice_what_needs_nothing_is_scored(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("ttsadapt.wavs.NEEDS_NOTHING", ("pauses", "silence", "clipping"))
    evaluate(asked("mcd"), asked=False)
    assert set(json.loads((tmp_path / "wavs/scores.json").read_text())["sets"]["wavs"]) == {"pauses", "silence", "clipping"}


def test_nothing_needs_anything():
    from ttsadapt.config.base import composed
    from ttsadapt.metrics.available import assembled
    from ttsadapt.wavs import NEEDS_NOTHING

    metrics = assembled(composed(f"metric=[{','.join(NEEDS_NOTHING)}]").metric)
    assert not any(m.compares or m.reads or m.spoken_only or m.needs(None, None) for m in metrics.values())


def test_how_a_model_spoke_is_read_from_beside_its_clips(asked, tmp_path, capsys):
    from ttsadapt.metrics.sidecar import note

    evaluate(asked("capped,rtf,pauses"))
    assert "left out: capped, rtf, which tell how a model spoke" in capsys.readouterr().out
    times = {"seconds": "0.5", "first_audio": "0.1", "streamed": "1", "duration": "2.0", "device": "cpu, 1 threads"}
    note(tmp_path / "wavs", {"low": {"capped": "1"} | times, "high": {"capped": "0"}})
    evaluate(asked("capped,rtf,first_audio,latency"))
    found = json.loads((tmp_path / "wavs/scores.json").read_text())["sets"]["wavs"]
    assert found["capped"]["mean"] == 50 and found["rtf"]["mean"] == 0.25 and found["latency"]["mean"] == 0.5
    assert found["first_audio"]["mean"] == 0.1 and found["first_audio"]["model"].endswith(", streamed")
    assert found["rtf"]["unknown"] == {"no seconds of the clip in speaking.csv beside it": 1}


def test_a_voice_that_the_judge_does_not_know_is_said(asked, tmp_path, capsys):
    import models

    path = models.xvector(tmp_path / "wavlm")
    cfg = asked("wavlm_sv", speaker="nobody")
    cfg.metric.wavlm_sv.path = str(path)
    evaluate(cfg)
    assert "n = 0; 2 left out: nobody has no recordings in the data: give data=" in capsys.readouterr().out
