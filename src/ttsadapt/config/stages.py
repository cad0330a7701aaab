"""A sequence: stages, each a run whose base is the outcome of the one before. Here are their configs; nothing is trained."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ttsadapt.config.base import composed
from ttsadapt.config.nearest import hint
from ttsadapt.config.schema import TrainConfig, check
from ttsadapt.errors import ConfigError

STAGES = "stages"
"""the runs of a study's sequences lie in <study>/stages"""
_KEPT_OUT = {"paths", "resume", "report", "logger", "stages"}
"""of an earlier stage's config: how to compute is the later one's business"""
_OF_THE_SEQUENCE = {"study", "stages", "previous", "paths", "resume", "report"}


def stage_configs(cfg: DictConfig) -> list[DictConfig]:
    """The run of every stage: `cfg` with the stage's changes, and with the stage before as `previous`.

    A run knows nothing of the stages after it, so sequences that start alike share their first runs.
    """
    configs: list[DictConfig] = []
    for number, changes in enumerate(cfg.stages, 1):
        stage = _bare(cfg)
        _change(stage, OmegaConf.to_container(changes, resolve=True), f"stages.{number}")  # type: ignore[arg-type]
        if configs:
            before = OmegaConf.to_container(configs[-1], resolve=True)
            assert isinstance(before, dict)
            stage.previous = {k: v for k, v in before.items() if k not in _KEPT_OUT}
        configs.append(stage)
    return configs


def titles(cfg: DictConfig) -> list[str]:
    """What the stages are called: their `name`, else whom or what they learn, else their number. ConfigError for doubles."""
    names = [str(changes.get("name") or _told(stage) or n) for n, (changes, stage) in enumerate(zip(cfg.stages, stage_configs(cfg)), 1)]
    if doubled := [n for n in names if names.count(n) > 1]:
        raise ConfigError(f"stages: two are called {doubled[0]!r}: give them different names (name: ...)")
    if taken := [n for n in names if n in cfg.evaluation.sets and n != "target"]:
        raise ConfigError(f"stages: one is called {taken[0]!r}, as is a set that is scored: give it another name")
    return names


def check_stages(cfg: DictConfig) -> None:
    """ConfigError that names the stage, for the first thing that is wrong in any."""
    if cfg.get("previous") is not None:
        raise ConfigError("stages and previous are given: a sequence starts from `base`")
    titles(cfg)
    for number, stage in enumerate(stage_configs(cfg), 1):
        try:
            check(stage)
        except ConfigError as error:
            raise ConfigError(f"stages.{number}: {error}") from error
        if not stage.strategy:
            raise ConfigError(f"stages.{number}.strategy=[] trains nothing: name a strategy, or leave the stage out")


def _told(stage: DictConfig) -> str:
    return " ".join("+".join(map(str, values)) for values in (stage.get("only") or {}).values() if values)


def _bare(cfg: DictConfig) -> DictConfig:
    """The run's own config, without stages and without what belongs to a command or to Hydra."""
    stage = OmegaConf.create({f.name: deepcopy(cfg._get_node(f.name)) for f in fields(TrainConfig) if f.name in cfg})
    stage.stages, stage.previous, stage.study = [], None, f"{cfg.study}/{STAGES}"
    return stage


def _change(stage: DictConfig, changes: Mapping[str, Any], where: str) -> None:
    """Names first (`strategy: [lora, ewc]` as on the command line), then nodes, then dotted keys: their order says nothing."""
    known = [f.name for f in fields(TrainConfig) if f.name not in _OF_THE_SEQUENCE]
    for key in sorted(changes, key=lambda k: (k.count("."), k)):
        first, value = key.partition(".")[0], changes[key]
        if key == "name":
            continue
        if first not in known:
            raise ConfigError(f"{where}.{key} is not a key of a stage{hint(first, [*known, 'name'])}")
        with open_dict(stage):
            if "." in key:
                _set(stage, key, value, where)
            elif isinstance(stage._get_node(key), DictConfig) and isinstance(value, str | list):
                stage[key] = _chosen(key, value, where)
            elif isinstance(value, dict):
                stage[key] = OmegaConf.merge(stage._get_node(key), value)
            else:
                stage[key] = value


def _set(stage: DictConfig, key: str, value: Any, where: str) -> None:
    owner = key.rpartition(".")[0]
    if not isinstance(OmegaConf.select(stage, owner), DictConfig):
        raise ConfigError(f"{where}.{key}: this stage has no {owner}: choose it first, or correct the name")
    OmegaConf.update(stage, key, value, force_add=True)


def _chosen(group: str, names: str | list[str], where: str) -> Any:
    """Options of a config group, with the group's own values."""
    asked = names if isinstance(names, str) else f"[{','.join(map(str, names))}]"
    try:
        return deepcopy(composed(f"{group}={asked}")._get_node(group))
    except ConfigError as error:
        raise ConfigError(f"{where}.{group}: {error}") from error
