"""Configs that follow from a config: the run that made its base, and the same run with nothing adapted."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path, PurePosixPath

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from ttsadapt.config import paths
from ttsadapt.config.nearest import hint
from ttsadapt.config.options import options
from ttsadapt.config.resolvers import register
from ttsadapt.errors import ConfigError
from ttsadapt.files import write_text

_FROM_THE_RUN = ("backbone", "paths", "resume", "report")
_KEPT = "base_config"
"""in the config of a run that is read from its folder: the config of the run that made its first base"""
_FROM_ITS_TRAINER = ("accelerator", "devices", "strategy", "compile", "gradient_checkpointing", "threads", "progress")


def base_config(cfg: DictConfig) -> DictConfig | None:
    """The config of the run that made `cfg`'s base: the stage before (`cfg.previous`), else the experiment `cfg.base` on `cfg`'s backbone.

    Of a run that is read from its folder it is the experiment as it was, wherever that lies now.
    Its data are `cfg`'s when they are of the same kind; a user's recordings are adapted to, the base keeps what it speaks.
    None when `cfg` trains from scratch. ConfigError when the experiment does not exist or needs a base itself.
    """
    if cfg.get("previous") is not None:
        before = _computed_as(cfg, DictConfig(OmegaConf.to_container(cfg.previous, resolve=True)), ("paths", "resume", "report", "logger"))
        _take(before, cfg, _KEPT)
        return before
    if cfg.base is None:
        return None
    base = DictConfig(OmegaConf.to_container(cfg[_KEPT])) if _KEPT in cfg else _experiment(cfg.base)
    if base.base is not None:
        raise ConfigError(f"base={cfg.base}: that experiment has a base of its own ({base.base}); say `base: null` in it")
    return _computed_as(cfg, base, (*_FROM_THE_RUN, *(["data"] if base.data._target_ == cfg.data._target_ else [])))


def _experiment(name: str) -> DictConfig:
    """The experiment that pretrains; when there is none, those are offered that do."""
    try:
        return composed(f"experiments={name}")
    except ConfigError as error:
        why = str(error).removeprefix(f"experiments={name}: ")
        if name not in (there := options("experiments")) and why.startswith("there is no such option"):
            bases = [other for other in there if "base" in PurePosixPath(other).name]
            why = f"there is no such option{hint(name, bases)}; for one of your own, set TTSADAPT_CONFIG_DIR to where experiments/ is"
        raise ConfigError(f"base={name}: {why}") from error


def write_config(cfg: DictConfig, folder: Path) -> None:
    """config.yaml into a run's folder, and base.yaml: the experiment that its base comes from need not be found again."""
    own = deepcopy(cfg)
    with open_dict(own):
        own.pop(_KEPT, None)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(own, resolve=True))
    for base in [run for run, stage in lineage(cfg) if not stage]:
        write_text(folder / "base.yaml", OmegaConf.to_yaml(base, resolve=True))


def read_config(folder: Path) -> DictConfig:
    """The config of the run in `folder`, which knows the base that it was made with."""
    cfg = DictConfig(OmegaConf.load(folder / "config.yaml"))
    if (folder / "base.yaml").is_file():
        cfg[_KEPT] = OmegaConf.load(folder / "base.yaml")
    return cfg


def _computed_as(cfg: DictConfig, base: DictConfig, taken: Iterable[str]) -> DictConfig:
    """`base` with what `cfg` says of the keys `taken`, and of how to compute (not what)."""
    for name in taken:
        _take(base, cfg, name)
    for name in _FROM_ITS_TRAINER:
        _take(base.trainer, cfg.trainer, name)
    return base


def lineage(cfg: DictConfig) -> Iterator[tuple[DictConfig, bool]]:
    """The runs that led to `cfg`'s base, the nearest first, each with whether it is an earlier stage of a sequence."""
    now: DictConfig = cfg
    while (base := base_config(now)) is not None:
        yield base, now.get("previous") is not None
        now = base


def untuned_config(cfg: DictConfig) -> DictConfig:
    """The same run without strategies: what the base scores, the floor of every comparison."""
    untuned = deepcopy(cfg)
    with open_dict(untuned):
        untuned.strategy = OmegaConf.create({})
    return untuned


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """`name`.yaml with overrides, inside a Hydra app or outside of one. Errors are ConfigErrors of one line."""
    from ttsadapt.config.errors import one_line

    app = GlobalHydra.instance().hydra
    folders = str([paths.conf(), *paths.own()]) if app is None else str(app.config_loader.get_search_path())
    try:
        return deepcopy(_composed(folders, name, overrides))
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        raise ConfigError(line) from error


@lru_cache(maxsize=64)
def _composed(folders: str, name: str, overrides: tuple[str, ...]) -> DictConfig:
    """`folders` only tells apps with different search paths apart: a sweep composes its base once."""
    register()
    if GlobalHydra.instance().is_initialized():
        return compose(name, list(overrides))
    with initialize_config_dir(str(paths.conf()), version_base="1.3"):
        return compose(name, list(overrides))


def _take(into: DictConfig, source: DictConfig, name: str) -> None:
    if name in source:
        with open_dict(into):
            into[name] = deepcopy(source._get_node(name))
