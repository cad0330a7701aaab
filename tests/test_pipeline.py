"""One run from its config to its summary, in this process; and what killing it, splitting it or spoiling it does."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

from ttsadapt.config.identity import run_folder, run_id

COLUMNS = {"set", "utterance", "metric", "value", "unit", "better", "model", "version", "speaker", "emotion", "text", "weight"}
COLUMNS |= {"seed", "why", "share"}


def start(mini, *overrides, **kw):
    command = [sys.executable, "-m", "ttsadapt.train", *mini.args(*overrides)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **kw)


def finish(process):
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out[-3000:]
    return out


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(mini):
    """A finished run with everything on."""
    from ttsadapt.run import train

    cfg = mini("strategy=[lora,ewc,kd,rehearsal]", "strategy.ewc.utterances=8", "study=done")
    train(cfg)
    return cfg, run_folder(cfg)


def test_a_run_leaves_what_it_promises(done):
    _, folder = done
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["steps"] == 12
    assert summary["name"] == "lora+ewc+kd+rehearsal" and summary["how"] == ["lora"]
    assert 0 < summary["trainable_parameters"] < summary["total_parameters"]
    for name in ("target", "source", "base/target", "base/source", "recordings/target", "resynthesis/source"):
        assert {"mcd", "f0"} <= summary["sets"][name].keys()
        mcd = summary["sets"][name]["mcd"]
        assert mcd["low"] <= mcd["mean"] <= mcd["high"]
    assert summary["sets"]["recordings/target"]["mcd"]["mean"] < 1e-6 < summary["sets"]["resynthesis/target"]["mcd"]["mean"]
    assert {"mcd", "f0"} <= summary["gain"].keys() & summary["forgetting"].keys()
    assert summary["kl"]["target"] > 0 and summary["kl"]["source"] > 0
    scores = rows(folder / "scores.csv")
    assert set(scores[0]) == COLUMNS
    assert len(list((folder / "wavs" / "target").glob("*.wav"))) == 3
    assert json.loads((folder / "provenance.json").read_text())["base"]
    logged = rows(folder / "metrics.csv")
    terms = {"train/mel", "train/duration", "train/ewc", "train/kd", "train/loss", "valid/target/loss", "valid/source/loss", "lr"}
    assert terms <= set(logged[0])
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_the_gain_is_the_paired_change_against_the_base(done):
    _, folder = done
    scores = rows(folder / "scores.csv")
    value = {(r["set"], r["utterance"]): float(r["value"]) for r in scores if r["metric"] == "mcd"}
    change = [value["base/target", u] - v for (s, u), v in value.items() if s == "target"]
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["gain"]["mcd"]["mean"] - sum(change) / len(change)) < 1e-6


def test_a_run_that_died_while_it_was_scored_ends_as_it_would_have(done):
    from ttsadapt.run import train

    cfg, folder = done
    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    (folder / "scores.csv").unlink()
    train(cfg)
    after = json.loads((folder / "summary.json").read_text())
    assert after["steps"] == before["steps"] == 12
    assert after["sets"] == before["sets"] and after["kl"] == before["kl"]


def test_more_metrics_for_a_finished_run_leave_its_others(done, mini, capsys):
    from ttsadapt.finished import evaluate

    _, folder = done
    before, scores = json.loads((folder / "summary.json").read_text()), rows(folder / "scores.csv")
    evaluate(mini("metric=[rate]", "study=done"), folder, ["metric=[rate]"])
    after = json.loads((folder / "summary.json").read_text())
    assert [r for r in rows(folder / "scores.csv") if r["metric"] != "rate"] == scores
    for name, metrics in before["sets"].items():
        assert {m: after["sets"][name][m] for m in metrics} == metrics
        assert after["sets"][name]["rate"]["n"] == metrics["mcd"]["n"]
    assert after["gain"]["mcd"] == before["gain"]["mcd"]
    said = capsys.readouterr().out
    assert str(folder) in said and "report study=done" in said
    assert after["compares"] == sorted({"rate", *before["compares"]}) and "mcd" in before["compares"]
    assert "  resynthesis/target   mcd" in said and "  recordings/target    mcd" not in said  # which can only be 0


def test_a_base_that_another_judge_has_scored_is_scored_again(done):
    """As when the recogniser came to the machine after the base was scored; its clips are there, nothing is spoken for it."""
    from ttsadapt.config.base import untuned_config
    from ttsadapt.finished import evaluate
    from ttsadapt.metrics.rows import read_scores, write_scores

    cfg, folder = done
    base = run_folder(untuned_config(cfg)) / "scores.csv"
    before, scores = json.loads((folder / "summary.json").read_text()), read_scores(base)
    write_scores(base, [r | {"version": "0", "value": 1.0} if r["metric"] == "mcd" else r for r in scores])
    evaluate(cfg, folder, [])
    after = json.loads((folder / "summary.json").read_text())
    assert after["gain"]["mcd"] == before["gain"]["mcd"] and after["forgetting"]["mcd"] == before["forgetting"]["mcd"]
    assert after["unpaired"] == {"gain": {}, "forgetting": {}}
    values = [{(r["set"], r["utterance"]): r["value"] for r in some if r["metric"] == "mcd"} for some in (read_scores(base), scores)]
    assert values[0] == values[1]


def test_a_combination_that_trains_nothing_leaves_nothing_behind(mini):
    from ttsadapt.errors import ConfigError
    from ttsadapt.run import train

    cfg = mini("strategy=[ewc,kd]", "study=idle")
    with pytest.raises(ConfigError, match=r"strategy=\[ewc,kd\] trains nothing: add full"):
        train(cfg)
    assert not run_folder(cfg).exists()


def test_a_sure_contradiction_is_refused_before_anything_is_pretrained(mini):
    from ttsadapt.errors import ConfigError
    from ttsadapt.run import train

    cfg = mini("strategy=[full,lora,kd]", "study=torn")
    with pytest.raises(ConfigError, match=r"^strategy=\[full,lora\] contradict each other: full trains the weights that lora would"):
        train(cfg)
    assert not run_folder(cfg).exists()


def test_sets_that_nothing_can_be_said_of_are_refused_before_anything_trains(mini):
    from ttsadapt.errors import ConfigError
    from ttsadapt.run import train

    cfg = mini("strategy=[lora]", "evaluation.sets=[target,sorce]", "study=unsaid")
    with pytest.raises(ConfigError, match=r"no sorce.test: did you mean 'source'\? \(say evaluation.sets=\[target\]\)"):
        train(cfg)
    assert not (run_folder(cfg) / "checkpoints").exists()


def test_recordings_that_the_backbone_cannot_learn_from_are_refused_before_anything_is_pretrained(mini, tmp_path):
    from ttsadapt.config.base import base_config, composed
    from ttsadapt.data.pcm import write_wav
    from ttsadapt.errors import DataError
    from ttsadapt.run import train

    for i, text in enumerate(("One.", "Two.", "Three.", "Four.")):
        write_wav(tmp_path / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, 16000).astype(np.float32), 16000)
        (tmp_path / f"{i}.txt").write_text(text)
    cfg = composed("data=folder", f"data.path={tmp_path}", "strategy=[lora]", "trainer.accelerator=cpu", "study=refused", "seed=71")
    with pytest.raises(DataError, match="data/bring/align=learned learns it"):
        train(cfg)
    assert not run_folder(base_config(cfg)).exists()


def test_the_same_config_in_another_order_is_the_same_run(done, mini, capsys):
    from ttsadapt.run import train

    cfg, _ = done
    other = mini("strategy=[rehearsal,kd,ewc,lora]", "strategy.ewc.utterances=8", "study=done")
    assert run_id(other) == run_id(cfg)
    train(other)
    assert "already finished" in capsys.readouterr().out


def test_the_adapter_loads_with_peft_and_does_something(done):
    from peft import PeftModel

    from ttsadapt.assembly import Assembly
    from ttsadapt.finished import restored

    cfg, folder = done
    assembly, learner = restored(folder)
    batch = assembly.features("target.valid")[0].collate(assembly.features("target.valid")[0].ids)
    bare = Assembly(cfg).base.backbone.eval()
    with torch.no_grad():
        untuned = bare(batch)["mel"].value.clone()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing.*")
            wrapped = PeftModel.from_pretrained(bare.peft_root, str(folder / "adapter")).eval()
        trained = [p for n, p in wrapped.named_parameters() if "lora_B" in n]
        assert trained and all(p.abs().max() > 0 for p in trained)
        loaded = bare(batch)["mel"].value
        assert torch.allclose(loaded, learner.backbone(batch)["mel"].value, atol=1e-5)
        assert (loaded - untuned).abs().max() > 1e-4


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(mini, done):
    """kill -9 between two checkpoints; the run that is told the same again ends with the same bits."""
    asked = ("strategy=[full,kd,rehearsal]", "trainer.max_steps=60", "trainer.val_every=30", "trainer.checkpoint_every=7", "metric=[]")
    straight = mini(*asked, "study=straight")
    finish(start(mini, *asked, "study=straight"))
    killed = mini(*asked, "study=killed")
    process = start(mini, *asked, "study=killed")
    last = run_folder(killed) / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((run_folder(killed) / "summary.json").read_text())["status"] == "finished" if process.returncode == 0 else True
    finish(start(mini, *asked, "study=killed"))
    ours, theirs = weights(run_folder(killed)), weights(run_folder(straight))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.slow
def test_two_ranks_give_the_curve_of_one(mini, done):
    asked = ("strategy=[full,kd,rehearsal]", "backbone.dropout=0", "backbone.predictor_dropout=0", "metric=[]", "trainer.log_every=1")
    one, two = (*asked, "study=one"), (*asked, "study=two", "trainer=ddp")
    finish(start(mini, *one))
    finish(start(mini, *two, "trainer.devices=2"))
    curves = [rows(run_folder(mini(*names)) / "metrics.csv") for names in (one, two)]
    losses = [[float(r["train/loss"]) for r in curve if r.get("train/loss")] for curve in curves]
    assert len(losses[0]) == len(losses[1]) == 12
    assert max(abs(a - b) for a, b in zip(*losses)) < 1e-5 * max(losses[0])


def test_a_checkpoint_of_another_base_is_refused(done, tmp_path):
    from ttsadapt.errors import CheckpointError
    from ttsadapt.finished import restored

    _, finished = done
    folder = shutil.copytree(finished, tmp_path / "run")  # other tests read the original
    path = folder / "checkpoints" / "last.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="corrupt"):
        restored(folder)
    path.write_bytes(whole)
    torch.save(torch.load(path, weights_only=True) | {"base": "0123"}, path)
    with pytest.raises(CheckpointError, match="belongs to base 0123"):
        restored(folder)
