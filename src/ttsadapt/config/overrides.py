"""What was asked for on the command line, put onto the config of a run that is finished: that and nothing else."""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def asked_for(asked: Sequence[str], group: str) -> list[Override]:
    """Those of the overrides `asked` that are about a config group, or about a key within it."""
    parsed = OverridesParser.create().parse_overrides(list(asked))
    return [o for o in parsed if re.split(r"[./]", str(o.key_or_group), maxsplit=1)[0] == group]


def put_onto(own: DictConfig, given: DictConfig, asked: Sequence[str], group: str) -> None:
    """`own[group]` becomes `given`'s where the group itself was chosen (`metric=[...]`); else only keys that were `asked` for are taken
    over (`metric.wer.part=...`), with those that refer to them. What the command's own config says beside that is left out."""
    found = asked_for(asked, group)
    if any("." not in str(o.key_or_group) for o in found):
        own[group] = deepcopy(given[group])
        return
    for override in found:
        key = str(override.key_or_group)
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            (OmegaConf.select(own, parent) or {}).pop(name, None)
            continue
        taken = [leaf for leaf in _leaves(given[group], group) if _within(_written(given, leaf), key) or _within(leaf, key)]
        for place in dict.fromkeys(_first_new(own, leaf) for leaf in taken):
            OmegaConf.update(own, place, _plain(OmegaConf.select(given, place)), merge=False, force_add=True)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _leaves(node: Any, key: str) -> Iterator[str]:
    """Keys of all that is no mapping, interpolations followed."""
    if isinstance(node, DictConfig):
        for name in node:
            yield from _leaves(node[name], f"{key}.{name!s}")
    else:
        yield key


def _written(cfg: DictConfig, key: str) -> str:
    """The key where the value at `key` is written: what an ancestor refers to stands for it."""
    parts = key.split(".")
    for cut in range(1, len(parts) + 1):
        parent = OmegaConf.select(cfg, ".".join(parts[: cut - 1])) if cut > 1 else cfg
        if OmegaConf.is_interpolation(parent, parts[cut - 1]) and (found := _REFERENCE.fullmatch(str(_raw(parent, parts[cut - 1])))):
            return _written(cfg, ".".join([found[1], *parts[cut:]]))
    return key


def _raw(node: DictConfig, name: str) -> Any:
    return OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index,call-overload]


def _within(key: str, whole: str) -> bool:
    return key == whole or key.startswith(f"{whole}.")


def _first_new(own: DictConfig, key: str) -> str:
    """The first part of `key` that `own` lacks: a metric that the run does not have comes whole."""
    parts = key.split(".")
    for cut in range(1, len(parts)):
        if OmegaConf.select(own, ".".join(parts[:cut])) is None:
            return ".".join(parts[:cut])
    return key
