from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from ttsadapt.analysis.ranking import Settings
from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.config.schema import SCHEMAS, check
from ttsadapt.config.signatures import signature
from ttsadapt.errors import ConfigError
from ttsadapt.where.base import Where
from ttsadapt.where.ranked import HighestLowest

PLACES = {
    "where": "where@strategy.lora.where",
    "data/roles": "data/roles@data",
    "condition": "condition@data.conditions.target",
}
"""of groups that lie inside of others"""
COMMANDS = {"analysis": "analyze", "bench": "bench", "decoding": "decode", "page": "report"}
GROUPS = sorted(
    f"{file.parent.relative_to(paths.conf())}={file.stem}" for file in paths.conf().rglob("*.yaml") if file.parent != paths.conf()
)
EXPERIMENTS = sorted(str(f.relative_to(paths.root()).with_suffix("")) for f in (paths.root() / "experiments").rglob("*.yaml"))
NEEDED = {"synthesize": ["run=a", "text=b"], "report": ["study=a"], "export": ["run=a", "to=b"], "compare": ["runs=[a,b]"]}
MANY = ("strategy", "metric", "logger")


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_command_passes(command, compose):
    check(compose(*NEEDED.get(command, []), name=command), command)


@pytest.mark.parametrize("choice", GROUPS)
def test_every_option_of_every_group_passes(choice, compose, tmp_path):
    group, option = choice.split("=")
    name = COMMANDS.get(group, "train")
    below = ["data=ljspeech"] if group.startswith("data/") else []  # a corpus that has them
    cfg = compose(*below, f"{group}=[{option}]" if group in MANY else f"{PLACES.get(group, group)}={option}", name=name)
    for node in (cfg[own] for own in ("backbone", "data") if own in cfg):  # the user's own files, from which others may follow
        for key in [k for k in node if OmegaConf.is_missing(node, k)]:
            node[key] = str(tmp_path)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, [str(tmp_path)] if key.endswith("where.names") else str(tmp_path))
    check(cfg, name)


WHERE = sorted(f.stem for f in (paths.conf() / "where").glob("*.yaml"))


@pytest.mark.parametrize("option", WHERE)
def test_every_choice_of_blocks_is_made_from_its_yaml(option, compose):
    """In a list of strategies each has its own; every argument of the class is written out, ranked ones with their analysis."""
    where = compose("strategy=[csp,lora,partial]", f"where@strategy.partial.where={option}", "where@strategy.lora.where=last").strategy
    assert where.lora.where._target_.endswith("Last") and "where" not in where.csp
    node = where.partial.where
    if option == "explicit":
        node.names = ["decoder.0"]
    made = instantiate(where.partial)
    assert isinstance(made.where, Where)
    wanted = signature(node._target_).parameters.keys()
    assert wanted == {k for k in node if k != "_target_"}
    if "analysis" in node:
        assert (
            made.where.analysis == Settings() and node.analysis.keys() - {"_target_"} == signature(node.analysis._target_).parameters.keys()
        )


def test_where_is_chosen_on_the_command_line(compose):
    assert compose().strategy.lora.where is None
    chosen = compose("strategy=[lora,ewc]", "where@strategy.lora.where=highest_lowest", "strategy.lora.where.analysis.seeds=5")
    check(chosen)
    where = instantiate(chosen.strategy.lora).where
    assert isinstance(where, HighestLowest) and where.analysis.seeds == 5 and where.middle == 0
    for wrong, words in (("n=0", "n=0 does not fit"), ("nope=1", "nope is not a key")):
        with pytest.raises(ConfigError, match=words):
            check(compose("where@strategy.lora.where=first", f"++strategy.lora.where.{wrong}"))
    with pytest.raises(ConfigError, match="where=higest: there is no such option: did you mean 'highest'"):
        compose("where@strategy.lora.where=higest")
    with pytest.raises(ConfigError, match=r"^Could not override 'where'. Did you mean to override where@strategy.lora.where\?$"):
        compose("where=highest")
    with pytest.raises(ConfigError, match=r"strategy.lora.where='highest' does not fit: Where or null"):
        check(compose("strategy.lora.where=highest"))
    with pytest.raises(ConfigError, match="names has no value"):
        check(compose("where@strategy.lora.where=explicit"))


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
