"""Recordings from anywhere: scored without a run, against a text, an emotion or recordings of the same names."""

import csv
import json
import re
from pathlib import Path

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
            cfg.paths.outputs = str(tmp_path / "outputs")
        return cfg

    return config


def summary_of(told: str) -> dict:
    """scores.json, where it was said to be written."""
    return json.loads((place_of(told) / "scores.json").read_text())


def place_of(told: str) -> Path:
    return Path(re.search(r"^written to (.*?): scores", told, re.M)[1])


def test_what_needs_nothing_is_scored_and_the_rest_named_once(asked, tmp_path, capsys):
    evaluate(cfg := asked("mcd,f0,articulation,f0_variation,pauses"))
    told = capsys.readouterr().out
    assert "left out: mcd, f0, which compare with recordings: give references=<a folder of recordings of the same names>" in told
    assert "left out: articulation, which needs the text: 1 recording has none, write <name>.txt beside them" in told
    assert place_of(told).parent == Path(cfg.paths.outputs) / "evaluate" and place_of(told).name.startswith("wavs-")
    with open(place_of(told) / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(r["utterance"], r["metric"]) for r in rows} == {(u, m) for u in ("low", "high") for m in ("f0_variation", "pauses")}
    assert sorted(p.name for p in (tmp_path / "wavs").iterdir()) == ["high.wav", "low.txt", "low.wav"]  # the user's own stay alone
    summary = summary_of(told)
    assert summary["sets"]["wavs"]["f0_variation"]["n"] == 2 and summary["sets"]["wavs"]["f0_variation"]["low"] is not None


def test_references_are_compared_with_and_scored_beside(asked, tmp_path, capsys):
    evaluate(asked("f0,mcd", references=str(tmp_path / "real"), emotion="happy", scores_to=str(tmp_path / "out")))
    summary = json.loads((tmp_path / "out/scores.json").read_text())["sets"]
    assert summary["wavs"]["f0"]["mean"] == pytest.approx(1200 * np.log2(1.1), rel=0.1)
    assert summary["recordings/wavs"]["f0"]["mean"] == pytest.approx(0, abs=1)
    with open(tmp_path / "out/scores.csv") as file:
        assert {r["emotion"] for r in csv.DictReader(file) if r["set"] == "wavs"} == {"happy"}
    assert "recordings/wavs" not in capsys.readouterr().out  # nothing is away from itself


def test_the_same_twice_gives_the_same_numbers(asked, capsys):
    found = []
    for _ in range(2):
        evaluate(asked("wada_snr,energy_range"))
        found.append((place_of(capsys.readouterr().out) / "scores.csv").read_bytes())
    assert found[0] == found[1]


def test_figures_of_other_metrics_stay_beside_and_those_of_other_recordings_are_elsewhere(asked, tmp_path, capsys):
    places = []
    for metric in ("pauses", "silence"):
        evaluate(asked(metric))
        places.append(place_of(told := capsys.readouterr().out))
    assert places[0] == places[1] and "beside what is there of pauses" in told and "wavs                 pauses" not in told
    assert set(summary_of(told)["sets"]["wavs"]) == {"pauses", "silence"}
    for changes in ({"references": str(tmp_path / "real")}, {"emotion": "happy"}):
        evaluate(asked("pauses", **changes))
        assert place_of(capsys.readouterr().out) not in places
    out = {"scores_to": str(tmp_path / "out")}
    evaluate(asked("pauses", **out))
    evaluate(asked("silence", emotion="happy", **out))
    assert "in place of figures of other recordings" in (told := capsys.readouterr().out) and "pauses" not in told.split("written to")[-1]
    assert set(json.loads((tmp_path / "out/scores.json").read_text())["sets"]["wavs"]) == {"silence"}


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
    summary = summary_of(capsys.readouterr().out)["sets"]["wavs"]
    assert summary["f0"]["mean"] == pytest.approx(1200 * np.log2(1.1), rel=0.1)
    assert summary["articulation"]["mean"] == pytest.approx(6.0, rel=0.15)  # six syllables in a second
    evaluate(asked("articulation,pauses", wavs=high))
    assert 'left out: articulation, which needs the text: 1 recording has none, give text="..."' in capsys.readouterr().out


def test_without_a_choice_what_needs_nothing_is_scored(asked, capsys, monkeypatch):
    monkeypatch.setattr("ttsadapt.metrics.anywhere.NEEDS_NOTHING", ("pauses", "silence", "clipping"))
    evaluate(asked("mcd"), asked=False)
    assert set(summary_of(told := capsys.readouterr().out)["sets"]["wavs"]) == {"pauses", "silence", "clipping"} and "left out" not in told


def test_without_a_choice_references_and_texts_are_used(asked, tmp_path, capsys, monkeypatch):
    """By all that compares or reads, unless it needs a model or a judge, or is a paper's own formula."""
    monkeypatch.setattr("ttsadapt.metrics.anywhere.NEEDS_NOTHING", ("pauses",))
    (tmp_path / "wavs/high.txt").write_text("a happy potato")
    evaluate(asked("pauses", references=str(tmp_path / "real")), asked=False, known=False)
    found = summary_of(told := capsys.readouterr().out)["sets"]["wavs"]
    assert found.keys() >= {
        "pauses",
        "mcd",
        "f0",
        "f0_correlation",
        "duration_ratio",
        "gpe",
        "vde",
        "energy_profile",
        "rate",
        "articulation",
    }
    assert not found.keys() & {"ffe", "mcd_hypertts", "emotion_similarity", "per", "wer", "ecapa", "resemblyzer", "rtf", "silence"}
    assert "left out" not in told and "words are heard" not in told


@pytest.mark.parametrize("name", ["per", "speaker", "emotion"])
def test_nothing_that_is_trained_on_a_corpus_judges_recordings_from_anywhere(asked, tmp_path, capsys, name):
    (tmp_path / "wavs/high.txt").write_text("a happy potato")
    evaluate(asked(f"{name},pauses"), known=False)
    told = capsys.readouterr().out
    assert f"left out: {name}: the judge is trained on a corpus" in told and "give data=<the corpus that they are of>" in told
    assert set(summary_of(told)["sets"]["wavs"]) == {"pauses"}


def test_no_word_error_of_recordings_from_anywhere_is_made_up(asked, tmp_path, capsys, monkeypatch):
    """Where Whisper is not there, what stands in knows the words of its corpus only; one line for all that ask it."""
    monkeypatch.setattr("ttsadapt.metrics.recognisers.released.incomplete", lambda path, key: f"{path} is away: give {key}=<folder>")
    (tmp_path / "wavs/high.txt").write_text("a happy potato")
    evaluate(asked("wer,cer,pauses"), known=False)
    told = capsys.readouterr().out
    assert told.count("is away") == 1 and "words are heard" not in told and "what would stand in is trained on a corpus" in told
    assert "wer, wer_substitutions" in told and "cer: openai/whisper-large-v3 is away: give metric.<name>.recogniser.path=<folder>" in told
    assert set(summary_of(told)["sets"]["wavs"]) == {"pauses"}
    with pytest.raises(ConfigError, match="none of them can be computed here, see above"):
        evaluate(asked("cer"), known=False)


def test_nothing_needs_anything():
    from ttsadapt.config.base import composed
    from ttsadapt.metrics.anywhere import NEEDS_NOTHING
    from ttsadapt.metrics.available import assembled

    metrics = assembled(composed(f"metric=[{','.join(NEEDS_NOTHING)}]").metric)
    assert not any(m.compares or m.reads or m.spoken_only or m.needs(None, None) for m in metrics.values())


def test_how_a_model_spoke_is_read_from_beside_its_clips(asked, tmp_path, capsys):
    from ttsadapt.metrics.sidecar import note

    evaluate(asked("capped,rtf,pauses"))
    assert "left out: capped, rtf, which tell how a model spoke" in capsys.readouterr().out
    times = {"seconds": "0.5", "first_audio": "0.1", "streamed": "1", "duration": "2.0", "device": "cpu, 1 threads"}
    note(tmp_path / "wavs", {"low": {"capped": "1"} | times, "high": {"capped": "0"}})
    evaluate(asked("capped,rtf,first_audio,latency"))
    found = summary_of(capsys.readouterr().out)["sets"]["wavs"]
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
