"""Configs that follow from a config: the run that pretrains its base, and the same run with nothing adapted."""

from copy import deepcopy
from functools import lru_cache

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from ttsadapt.config import paths
from ttsadapt.config.resolvers import register
from ttsadapt.errors import ConfigError

_FROM_THE_RUN = ("backbone", "paths", "resume", "report")
_FROM_ITS_TRAINER = ("accelerator", "devices", "strategy", "compile", "gradient_checkpointing", "threads", "progress")


def base_config(cfg: DictConfig) -> DictConfig | None:
    """The config of the run that pretrains `cfg`'s base: the experiment `cfg.base` on `cfg`'s own backbone.

    Its data are `cfg`'s when they are of the same kind; a user's recordings are adapted to, the base keeps what it speaks.
    None when `cfg` trains from scratch. ConfigError when the experiment does not exist or needs a base itself.
    """
    if cfg.base is None:
        return None
    try:
        base = composed(f"experiments={cfg.base}")
    except ConfigError as error:
        raise ConfigError(f"base={cfg.base}: {str(error).removeprefix(f'experiments={cfg.base}: ')}") from error
    if base.base is not None:
        raise ConfigError(f"base={cfg.base}: that experiment has a base of its own ({base.base}); say `base: null` in it")
    for name in _FROM_THE_RUN:
        _take(base, cfg, name)
    if base.data._target_ == cfg.data._target_:
        _take(base, cfg, "data")
    for name in _FROM_ITS_TRAINER:  # how to compute, not what
        _take(base.trainer, cfg.trainer, name)
    return base


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
