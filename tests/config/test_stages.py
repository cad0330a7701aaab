import pytest
from omegaconf import OmegaConf, open_dict

from ttsadapt.config.base import base_config
from ttsadapt.config.identity import run_folder, run_id
from ttsadapt.config.schema import check
from ttsadapt.config.stages import stage_configs, titles
from ttsadapt.errors import ConfigError

SECOND = "{name:second,only.speaker:[Lee],strategy:[full,ewc],strategy.ewc.strength:3.0,trainer:{max_steps:7}}"
TURNED = "{strategy.ewc.strength:3.0,trainer.max_steps:7,strategy:[ewc,full],only:{speaker:[Lee]},name:second}"
TWO = f"stages=[{{only.speaker:[shelby]}},{SECOND}]"


def test_a_stage_is_the_run_with_its_changes_on_the_stage_before(compose):
    cfg = compose(TWO, "strategy=[lora]", "strategy.lora.rank=4", "optimizer.lr=0.5")
    first, second = stage_configs(cfg)
    assert titles(cfg) == ["shelby", "second"]
    assert first.only.speaker == ["shelby"] and first.strategy.lora.rank == 4 and first.previous is None
    assert sorted(second.strategy) == ["ewc", "full"] and second.strategy.ewc.strength == 3.0 and second.trainer.max_steps == 7
    assert second.optimizer.lr == 0.5 and second.only.speaker == ["Lee"] and second.study == f"{cfg.study}/stages"
    check(cfg)
    assert run_id(base_config(second)) == run_id(first) and run_folder(base_config(second)) == run_folder(first)
    assert run_id(base_config(first)) == run_id(base_config(compose()))  # both start from the same pretraining


def test_sequences_that_start_alike_share_their_first_runs(compose):
    longer = TWO.removesuffix("]") + ",{name:third,only.emotion:[sad]}]"
    short, long = (list(map(run_id, stage_configs(compose(stages)))) for stages in (TWO, longer))
    assert long[:2] == short and len(set(long)) == 3
    assert run_id(compose(TWO)) != run_id(compose(longer))
    swapped = compose("stages=[{name:second,only.speaker:[Lee]},{only.speaker:[shelby]}]")
    assert run_id(swapped) != run_id(compose("stages=[{only.speaker:[shelby]},{name:second,only.speaker:[Lee]}]"))


def test_the_order_of_keys_and_their_spelling_say_nothing(compose):
    assert run_id(compose(TWO.replace(SECOND, TURNED))) == run_id(compose(TWO))


def test_what_a_run_is_without_stages_has_not_changed_its_name(compose):
    cfg = compose()
    known = run_id(cfg)
    assert known == run_id(compose("only.speaker=null", "remember=[source]"))
    assert known != run_id(compose("only.speaker=[shelby]")) and known != run_id(compose("remember=[source,stages]"))
    with open_dict(cfg):  # a config that was written before there were stages
        for key in ("stages", "previous", "remember", "only"):
            del cfg[key]
    assert run_id(cfg) == known


def test_a_stage_reads_the_folder_of_the_one_before(compose, tmp_path):
    stages = "stages=[{only.speaker:[shelby]},{only.speaker:[Lee]}]"
    cfgs = [compose(stages, f"paths.outputs={tmp_path / name}") for name in "ab"]
    for cfg in cfgs:
        with open_dict(cfg):
            cfg.strategy.lora.layers = ["${previous:}"]  # any value of any strategy
    (first, second), (_, other) = map(stage_configs, cfgs)
    assert first.strategy.lora.layers == [None]
    assert second.strategy.lora.layers == [str(run_folder(first))]
    assert run_id(second) == run_id(other)  # where the outputs lie does not count
    saved = OmegaConf.create(OmegaConf.to_yaml(second, resolve=True))
    assert run_id(saved) == run_id(second)


WRONG = {
    "{onli.speaker:[x]}": r"stages\.1\.onli\.speaker is not a key of a stage: did you mean 'only'\?",
    "{only.speakr:[x]}": r"stages\.1: only\.speakr is not a key: did you mean 'speaker'\?",
    "{strategy:[lorra]}": r"stages\.1\.strategy: strategy=lorra: there is no such option: did you mean 'lora'\?",
    "{strategy.ewc.strength:2}": r"stages\.1\.strategy\.ewc\.strength: this stage has no strategy\.ewc",
    "{trainer.max_step:2}": r"stages\.1: trainer\.max_step is not a key: did you mean 'max_steps'\?",
    "{study:x}": r"stages\.1\.study is not a key of a stage",
    "{strategy:[]}": r"stages\.1\.strategy=\[\] trains nothing",
    "{name:a},{name:a}": r"stages: two are called 'a'",
    "{name:source}": r"stages: one is called 'source', as is a set",
}


@pytest.mark.parametrize("stages", WRONG)
def test_a_mistake_is_told_with_its_stage(compose, stages):
    with pytest.raises(ConfigError, match=WRONG[stages]) as error:
        check(compose(f"stages=[{stages}]"))
    assert "\n" not in str(error.value)
