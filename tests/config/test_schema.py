from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.config.schema import SCHEMAS, check
from ttsadapt.errors import ConfigError

GROUPS = sorted(
    f"{file.parent.relative_to(paths.conf())}={file.stem}" for file in paths.conf().rglob("*.yaml") if file.parent != paths.conf()
)
EXPERIMENTS = sorted(str(f.relative_to(paths.root()).with_suffix("")) for f in (paths.root() / "experiments").rglob("*.yaml"))
NEEDED = {"synthesize": ["run=a", "text=b"], "report": ["study=a"], "export": ["run=a", "to=b"]}
MANY = ("strategy", "metric", "logger")


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_command_passes(command, compose):
    check(compose(*NEEDED.get(command, []), name=command), command)


@pytest.mark.parametrize("choice", GROUPS)
def test_every_option_of_every_group_passes(choice, compose, tmp_path):
    group, option = choice.split("=")
    command = group if group in SCHEMAS else "train"  # `bench` has a group of its own
    cfg = compose(f"{group}=[{option}]" if group in MANY else choice, name=command)
    for node in (cfg[k] for k in ("backbone", "data") if k in cfg):  # files and folders of the user's own, from which others may follow
        for key in [k for k in node if OmegaConf.is_missing(node, k)]:
            node[key] = str(tmp_path)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, str(tmp_path))
    check(cfg, command)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_passes(experiment, compose):
    check(compose(experiment.replace("experiments/", "experiments=", 1)))


WRONG = {
    "seed": "a",
    "study": 3,
    "evaluation.sets": "target",
    "evaluation.limit": 0,
    "evaluation": 3,
    "trainer.max_steps": 0,
    "trainer.progress": 1,
    "trainer.gradient_clip": "high",
    "trainer.precision": 17,
    "train_on": "both",
    "strategy.lora.rank": "many",
    "strategy.lora.rslora": 3,
    "optimizer.lr": "fast",
    "optimizer.betas": [0.9],
    "scheduler.warmup": "long",
    "strategy.lora.nope": 1,
    "evaluation.nope": 1,
    "nope": 1,
    "scheduler._target_": "ttsadapt.scheduler.nope",
    "optimizer._target_": "nowhere.Adam",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_one_line_with_its_key(key, compose):
    cfg = compose()
    OmegaConf.update(cfg, key, WRONG[key], merge=False, force_add=True)
    with pytest.raises(ConfigError) as error:
        check(cfg)
    assert str(error.value).startswith(key)
    assert "\n" not in str(error.value)


def test_a_node_that_is_missing(compose):
    cfg = compose()
    with open_dict(cfg):
        del cfg["backbone"]
    with pytest.raises(ConfigError, match="backbone is missing"):
        check(cfg)


def test_the_nearest_name_is_said(compose):
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        check(compose("+strategy.lora.rnk=1"))


def test_a_required_value_that_nothing_gives(compose):
    with pytest.raises(ConfigError, match=r"run has no value: add run=\.\.\."):
        check(compose("text=hello", name="synthesize"), "synthesize")


def test_what_the_code_hands_over_is_not_missed(compose):
    """`warmup_cosine(optimizer, max_steps)` and `CSVLogger(folder)` get these at run time."""
    cfg = compose()
    assert "optimizer" not in cfg.scheduler and "folder" not in cfg.logger.csv
    check(cfg)


def test_paths_are_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTSADAPT_OUTPUTS", raising=False)
    assert (paths.conf() / "train.yaml").is_file()
    assert composed("experiments=quickstart/base").study == "quickstart/base"
    assert paths.outputs() == (paths.checkout() or Path.cwd()) / "outputs"
