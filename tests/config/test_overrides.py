"""Overrides put onto the config of a finished run: what was asked for and nothing else."""

import pytest
from omegaconf import OmegaConf

from ttsadapt.config.base import composed
from ttsadapt.config.overrides import asked_for, put_onto


def finished(**metric):
    found = {"per": {"_target_": "p", "steps": 3}, "wer": {"_target_": "w", "recogniser": {"path": "old"}, "part": "all"}} | metric
    return OmegaConf.create({"evaluation": {"sets": ["source"], "limit": 7, "seeds": [0, 1]}, "metric": found})


def asked(*overrides):
    own = finished()
    given = composed("metric=[wer]" if not any("=[" in o and o.startswith("metric=") for o in overrides) else overrides[0])
    for key, value in (o.split("=", 1) for o in overrides if "." in o.partition("=")[0] and not o.startswith("~")):
        OmegaConf.update(given, key.lstrip("+"), value if value[:1] != "[" else value[1:-1].split(","), force_add=True)
    for group in ("evaluation", "metric"):
        put_onto(own, given, overrides, group)
    return own


def test_one_key_leaves_the_others_as_the_run_had_them():
    own = asked("evaluation.limit=3")
    assert own.evaluation.limit == "3" and own.evaluation.seeds == [0, 1] and own.evaluation.sets == ["source"]
    assert own.metric == finished().metric
    own = asked("metric.wer.part=deletions")
    assert own.metric.wer == {"_target_": "w", "recogniser": {"path": "old"}, "part": "deletions"} and own.metric.per.steps == 3
    assert set(own.metric) == {"per", "wer"}
    assert "limit" not in asked("~evaluation.limit").evaluation
    assert asked("~metric.mcd.x").metric == finished().metric


def test_a_metric_that_the_run_has_not_comes_whole_and_what_refers_to_a_key_follows_it():
    own = asked("metric.wer.recogniser.path=/new")
    assert own.metric.wer.recogniser.path == "/new" and own.metric.wer.part == "all"
    failed = own.metric.wer_failed
    assert failed._target_.endswith("wer.Failed") and failed.recogniser.path == "/new" and failed.above == 50


@pytest.mark.parametrize("override", ["metric=[mcd]", "~metric", "+metric=mcd", "metric/mcd=x"])
def test_choosing_metrics_replaces_them(override):
    own, given = finished(), composed("metric=[mcd]")
    put_onto(own, given, [override], "metric")
    assert list(own.metric) == ["mcd"]


def test_what_is_about_metrics():
    chosen = ["metric=[a]", "metric.a.b=1", "+metric.a=1", "~metric", "~metric.a", "metric/x=y", "metric@metric=a"]
    assert len(asked_for(chosen, "metric")) == len(chosen)
    assert asked_for(["validation.metric=[a]", "metrics=1", "evaluation.limit=1"], "metric") == []
