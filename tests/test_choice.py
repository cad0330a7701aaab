"""Runs that are listened to while they train, chosen by what is heard; and those that cannot be."""

import csv
import io
import json
import re
from contextlib import redirect_stdout

import pytest
import torch

from ttsadapt.choice import direction, listeners
from ttsadapt.config.identity import run_folder, run_id
from ttsadapt.errors import ConfigError

HEARD = ("validation.metric=[mcd,wada_snr]", "metric=[wada_snr]", "validation.sentences=2", "evaluation.limit=1", "trainer.val_every=4")


@pytest.fixture(scope="module")
def heard(mini):
    """A run that is scored where the distortion of what it says was largest: what was asked for goes before what the metric says."""
    from ttsadapt.run import train

    asked = (
        "strategy=[full]",
        "base=null",
        "optimizer.lr=0.05",
        "checkpoint.monitor=valid/target/mcd",
        "checkpoint.score=best",
        "checkpoint.mode=max",
        "study=heard",
    )
    cfg = mini(*HEARD, *asked)
    with redirect_stdout(io.StringIO()) as said:
        train(cfg)
    return cfg, run_folder(cfg), said.getvalue()


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [r for r in csv.DictReader(file) if r["valid/target/loss"]]


def test_what_is_heard_is_logged_and_the_best_is_scored(heard):
    from ttsadapt.finished import restored

    _, folder, _ = heard
    summary = json.loads((folder / "summary.json").read_text())
    by_step = {int(r["step"]) + 1: float(r["valid/target/mcd"]) for r in rows(folder)}
    assert sorted(by_step) == [4, 8, 12] and all(float(r["valid/source/mcd"]) > 0 for r in rows(folder))
    chosen, best = summary["checkpoint"], max(by_step, key=by_step.get)
    assert (chosen["monitor"], chosen["mode"], chosen["scored"]) == ("valid/target/mcd", "max", "best")
    assert chosen["best"]["step"] == best and chosen["best"]["value"] == pytest.approx(by_step[best], rel=1e-6)
    assert summary["validation"]["sentences"] == {"target": 2, "source": 2} and summary["validation"]["times"] == 3
    assert summary["validation"]["metrics"]["mcd"]["better"] == "lower" and summary["validation"]["seconds_each"] > 0
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == best < last["global_step"] == 12
    learner = restored(folder)[1]
    state = learner.state_dict()
    assert all(torch.equal(state[n], t) for n, t in kept["state_dict"].items())
    assert not all(torch.equal(state[n], t) for n, t in last["state_dict"].items())


def test_what_is_heard_is_told(heard):
    _, folder, said = heard
    chosen = json.loads((folder / "summary.json").read_text())["checkpoint"]["best"]
    told = dict(re.findall(r"heard at step (\d+): target mcd (\S+) dB, wada_snr \S+ dB; source mcd", said))
    assert list(told) == ["4", "8", "12"] and told[str(chosen["step"])] == f"{chosen['value']:.4g}"
    assert f"valid/target/mcd was best at step {chosen['step']} ({chosen['value']:.4g}); scored are the best weights" in said


def test_what_is_spoken_is_what_the_chosen_weights_say(heard):
    """The clips that were scored in the end are those of best.ckpt."""
    from dataclasses import replace

    from ttsadapt.data.audio import load
    from ttsadapt.finished import restored
    from ttsadapt.scoring import sentences

    _, folder, _ = heard
    assembly, learner = restored(folder)
    (said,) = sentences(assembly, "target")
    (wave,) = learner.backbone.synthesize([replace(learner.backbone.frontend.request(said), seed=0)])
    assert torch.allclose(load(folder / "wavs" / "target" / f"{said.id}.wav", learner.backbone.sample_rate), wave, atol=1e-4)


def test_the_page_says_where_loss_and_quality_parted(heard):
    from ttsadapt.reports import build

    _, folder, _ = heard
    page = build(folder.parent).read_text()
    said = rows(folder)
    loss, mcd = ({int(r["step"]) + 1: float(r[f"valid/target/{n}"]) for r in said} for n in ("loss", "mcd"))
    assert f"loss was lowest at step {min(loss, key=loss.get)} (" in page and 'id="divergence"' in page
    assert f"{mcd[min(mcd, key=mcd.get)]:.2f} dB" in page
    assert (folder.parent / "plots" / "divergence.png").stat().st_size > 1000


REFUSED = {
    ("validation.metric=[mdc]",): r"validation.metric=\[mdc\]: .*mcd",
    (
        "checkpoint.monitor=valid/target/mcd",
    ): r"checkpoint.monitor=valid/target/mcd is not logged.*valid/source/loss.*validation.metric=\[mcd\]",
    ("checkpoint.monitor=valid/tarjet/loss",): "is not logged: did you mean 'valid/target/loss'",
    ("validation.metric=[pauses]", "checkpoint.monitor=valid/target/pauses"): "near reference.*checkpoint.mode=min or max",
    ("validation.metric=[per,capped]",): r"validation.metric=\[capped\] is not heard",
    (
        "checkpoint.score=best",
        "trainer.val_every=13",
    ): "valid/target/loss is known every 13 steps .trainer.val_every. and trainer.max_steps=12",
    (
        "checkpoint.score=best",
        "checkpoint.monitor=valid/target/mcd",
        "validation.metric=[mcd]",
        "validation.every=3",
    ): r"known every 18 steps \(trainer.val_every \* validation.every\)",
}


@pytest.mark.parametrize("asked", REFUSED, ids=lambda asked: asked[-1])
def test_what_cannot_be_monitored_is_one_line_before_anything_trains(mini, asked):
    from ttsadapt.run import train

    cfg = mini("strategy=[full]", "base=null", "metric=[]", "study=refused", *asked)
    with pytest.raises(ConfigError, match=REFUSED[asked]) as error:
        train(cfg)
    assert "\n" not in str(error.value) and not (run_folder(cfg) / "checkpoints").exists()


def test_there_is_no_best_without_a_validation(mini):
    from ttsadapt.choice import refuse_best_of_none

    refuse_best_of_none(mini(), {}, [])
    cfg = mini("checkpoint.score=best")
    refuse_best_of_none(cfg, {}, ["source"])
    with pytest.raises(ConfigError, match="no valid split"):
        refuse_best_of_none(cfg, {}, [])


def test_a_head_may_be_monitored(mini):
    from ttsadapt.artifacts import ensure
    from ttsadapt.assembly import Assembly
    from ttsadapt.choice import refuse_unknown_monitor
    from ttsadapt.run import build_learner

    assembly = Assembly(mini("strategy=[full]", "base=null", "checkpoint.monitor=valid/target/mel"))
    ensure(*assembly.corpora)
    ensure(*assembly.needs())
    learner, _ = build_learner(assembly)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    refuse_unknown_monitor(assembly, learner.backbone, ("target",), None)
    assert torch.equal(before, torch.get_rng_state())


def test_the_direction_is_the_metrics_own(mini):
    asked = ("validation.metric=[mcd,f0_correlation]", "metric=[]")
    for monitor, mode, wanted in (
        ("valid/target/mcd", "auto", "min"),
        ("valid/source/f0_correlation", "auto", "max"),
        ("valid/target/loss", "auto", "min"),
        ("valid/target/mcd", "max", "max"),
    ):
        cfg = mini(*asked, f"checkpoint.monitor={monitor}", f"checkpoint.mode={mode}")
        assert direction(cfg, listeners(cfg)) == wanted


def test_a_run_keeps_its_name_where_nothing_listens(mini):
    plain = run_id(mini())
    assert run_id(mini("validation.sentences=3", "validation.every=2")) == plain
    assert len({plain, run_id(mini("validation.metric=[mcd]")), run_id(mini("checkpoint.score=best"))}) == 3
    untuned = ("strategy=[]", "checkpoint.score=best", "validation.metric=[mcd]")
    assert run_id(mini(*untuned)) == run_id(mini("strategy=[]"))
    old = mini()
    del old.validation, old.checkpoint
    assert run_id(old) == plain


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("strategy=[full]", "backbone.dropout=0.2"), ("strategy=[partial,rehearsal]", "prefix=memory")])
def test_a_real_run_ends_with_the_same_weights_whether_it_is_listened_to_or_not(mini, asked):
    """A judge that is trained and opened, a vocoder that draws phases, a cache of what frozen blocks put out."""
    from ttsadapt.run import train

    states = []
    for ears in (("metric=[]",), ("metric=[per]", "metric.per.steps=1", "validation.metric=[per,mcd]", "validation.sentences=2")):
        cfg = mini(*asked, "base=null", "trainer.val_every=4", *ears, "study=ears")
        train(cfg)
        states.append(torch.load(run_folder(cfg) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][n], t) for n, t in states[1].items())
