import pytest
from omegaconf import OmegaConf, open_dict

from ttsadapt.config.base import base_config, lineage, read_config, untuned_config, write_config
from ttsadapt.config.identity import code_hash, made_by_other_code, run_folder, run_id, status
from ttsadapt.config.schema import check
from ttsadapt.config.stages import stage_configs
from ttsadapt.errors import ConfigError
from ttsadapt.files import write_json


def test_order_of_strategies_and_keys_does_not_count(compose):
    assert run_id(compose("strategy=[lora,ewc,kd]")) == run_id(compose("strategy=[kd,lora,ewc]"))
    assert run_id(compose("seed=1", "optimizer.lr=0.1")) == run_id(compose("optimizer.lr=0.1", "seed=1"))


INFRASTRUCTURE = [
    "study=other",
    "paths.outputs=/elsewhere",
    "resume=false",
    "report=false",
    "logger=[]",
    "trainer=ddp",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
]


@pytest.mark.parametrize("override", INFRASTRUCTURE)
def test_infrastructure_does_not_count(override, compose):
    assert run_id(compose()) == run_id(compose(override))


EVERYTHING_ELSE = [
    "seed=1",
    "optimizer.lr=0.5",
    "strategy.lora.rank=2",
    "metric=[]",
    "base=null",
    "evaluation.limit=3",
    "trainer.max_steps=7",
]


@pytest.mark.parametrize("override", EVERYTHING_ELSE)
def test_everything_else_counts(override, compose):
    assert run_id(compose()) != run_id(compose(override))


def test_workers_do_not_count(compose):
    one, two = compose(), compose()
    for cfg, workers in ((one, 1), (two, 2)):
        with open_dict(cfg):
            cfg.data.workers = workers
    assert run_id(one) == run_id(two)


def test_with_nothing_to_train_only_what_is_scored_counts(compose):
    assert run_id(compose("strategy=[]")) == run_id(compose("strategy=[]", "optimizer.lr=0.5", "trainer.max_steps=7"))
    assert run_id(compose("strategy=[]")) != run_id(compose("strategy=[]", "evaluation.limit=3"))
    assert run_id(untuned_config(compose("strategy=[full,ewc]"))) == run_id(compose("strategy=[]"))


@pytest.mark.parametrize("large", [False, True])
def test_paths_count_by_content(compose, tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr("ttsadapt.config.identity._LARGE", 1)

    def identity(name, content):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "a.txt").write_text(content)
        cfg = compose()
        with open_dict(cfg):
            cfg.data.table_path = str(tmp_path / name)
        return run_id(cfg)

    first = identity("one", "same")
    assert first == identity("two", "same")
    assert first != identity("two", "other content")
    assert first == identity("one", "same")
    assert (tmp_path / "cache" / "hashes.sqlite").is_file() == large


def test_the_base_counts_by_its_own_identity(compose, monkeypatch):
    before = run_id(compose())
    base = base_config(compose())
    assert before != run_id(base)
    monkeypatch.setattr("ttsadapt.config.identity.base_config", lambda cfg: None if cfg.base is None else _other(base))
    assert run_id(compose()) != before


def _other(base):
    changed = base.copy()
    changed.seed = 99
    return changed


def test_the_base_takes_the_runs_backbone_and_data(compose):
    cfg = compose("seed=5", "trainer.accelerator=cpu")
    with open_dict(cfg):
        cfg.backbone.hidden = 7
    base = base_config(cfg)
    assert base.backbone == cfg.backbone and base.data == cfg.data and base.paths == cfg.paths
    assert base.trainer.accelerator == "cpu"
    assert (base.train_on, base.base, list(base.strategy), dict(base.metric), base.seed) == ("source", None, ["full"], {}, 0)
    assert base_config(base) is None
    check(base_config(compose()))


def test_a_base_that_has_a_base_is_refused(compose):
    cfg = compose()
    cfg.base = "quickstart/compare"
    with pytest.raises(ConfigError, match="base=quickstart/compare"):
        base_config(cfg)


def test_a_missing_base_is_refused(compose):
    cfg = compose()
    cfg.base = "quickstart/bsae"
    with pytest.raises(ConfigError, match="quickstart/base"):
        run_id(cfg)


def test_identity_survives_the_config_file(compose, tmp_path):
    cfg = compose("strategy=[lora,ewc]")
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)
    again = OmegaConf.load(tmp_path / "config.yaml")
    assert run_id(again) == run_id(cfg)
    assert run_folder(again) == tmp_path / "adhoc" / run_id(cfg)


def test_a_run_knows_its_base_where_the_experiment_is_not_found(compose, tmp_path, monkeypatch):
    """The experiment lay in a folder that another shell knows nothing of; or somebody has changed it since."""
    own = tmp_path / "own" / "experiments" / "mine"
    own.mkdir(parents=True)
    (own / "short.yaml").write_text("# @package _global_\nbase: null\ntrain_on: source\nstudy: mine\ntrainer: {max_steps: 7}\n")
    monkeypatch.setenv("TTSADAPT_CONFIG_DIR", str(tmp_path / "own"))
    cfg = compose("base=mine/short", "stages=[{only.speaker:[a]},{only.speaker:[b]}]")
    stages, folders = stage_configs(cfg), [tmp_path / "1", tmp_path / "2"]
    for stage, folder in zip(stages, folders):
        write_config(stage, folder)
    known = [run_folder(run) for run, _ in lineage(stages[1])]
    ids = [run_id(stage) for stage in stages]
    monkeypatch.delenv("TTSADAPT_CONFIG_DIR")
    with pytest.raises(ConfigError, match=r"^base=mine/short: there is no such option: there are quickstart/base, .*TTSADAPT_CONFIG_DIR"):
        base_config(compose("base=mine/short"))
    first, second = (read_config(folder) for folder in folders)
    assert [run_folder(run) for run, _ in lineage(first)] == known[1:] and [run_folder(run) for run, _ in lineage(second)] == known
    assert [run_id(first), run_id(second)] == ids and base_config(first).trainer.max_steps == 7
    write_config(untuned_config(second), tmp_path / "untuned")  # as what one run asks of another
    assert [run_folder(run) for run, _ in lineage(read_config(tmp_path / "untuned"))] == known
    assert "base_config" not in (tmp_path / "untuned" / "config.yaml").read_text()


def test_status(tmp_path):
    assert status(tmp_path / "no") == "missing"
    (tmp_path / "checkpoints").mkdir()
    assert status(tmp_path) == "partial"
    for said in ("finished", "failed", "stopped"):
        write_json(tmp_path / "summary.json", {"status": said})
        assert status(tmp_path) == said
    (tmp_path / "summary.json").write_text('{"status": "fini')
    assert status(tmp_path) == "partial"


def test_code_of_a_run(tmp_path):
    assert made_by_other_code(tmp_path)
    write_json(tmp_path / "provenance.json", {"code": code_hash()})
    assert not made_by_other_code(tmp_path)
