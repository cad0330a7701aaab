"""The options of the config groups, read off their yaml files: what there is to choose, and which of them have a key."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import Container, DictConfig, OmegaConf

from ttsadapt.config import paths

_SHOWN = 16


def options(group: str) -> list[str]:
    """Every option of a group, folders within it included."""
    return sorted({str(f.relative_to(place).with_suffix("")) for place in _places(group) for f in place.rglob("*.yaml")})


def groups() -> set[str]:
    return {f.name for f in paths.conf().iterdir() if f.is_dir()} | {"experiments"}


def elsewhere(key: str, root: Container) -> str | None:
    """What to choose so that the dotted `key`, which `root` lacks, is there; None when no option of a group has it."""
    parts = key.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        group, wanted = "/".join(parts[:cut]), parts[cut]
        having = [name for name in options(group) if "/" not in name and wanted in _keys(group, name)]
        chosen = OmegaConf.select(root, ".".join(parts[:cut]))
        if isinstance(chosen, DictConfig) and wanted in chosen:
            return None
        if having == [wanted]:  # options of this group lie beside each other, each under its name
            return f"add {wanted} to {group}=[{','.join(map(str, chosen or ()))}]"
        if having:
            kind = str(chosen.get("_target_", "")).rpartition(".")[2] if isinstance(chosen, DictConfig) else ""
            what = f"the chosen {group}{f' ({kind})' if kind else ''} has no {wanted}" if chosen else f"no {group} is chosen"
            more = ", ..." if len(having) > _SHOWN else ""
            return f"{what}: choose one that has it, {group}={', '.join(having[:_SHOWN])}{more}"
    return None


def _places(group: str) -> list[Path]:
    return [place / group for place in (paths.conf(), paths.root(), *paths.own()) if (place / group).is_dir()]


@lru_cache(maxsize=256)
def _keys(group: str, option: str) -> frozenset[str]:
    """The keys at the top of an option, with those that its defaults bring."""
    file = next((place / f"{option}.yaml" for place in _places(group) if (place / f"{option}.yaml").is_file()), None)
    text = file.read_text(encoding="utf-8") if file is not None else ""
    node = yaml.safe_load(text)
    if not isinstance(node, dict):
        return frozenset()
    if text.startswith("# @package _global_"):  # it sets keys beside its group's, too
        node = {"defaults": node.get("defaults", ()), **(node.get(group) or {})}
    brought = {key for entry in node.get("defaults", ()) for key in _brought(group, entry)}
    return frozenset((set(map(str, node)) | brought) - {"defaults"})


def _brought(group: str, entry: Any) -> Iterator[str]:
    """Of one entry of a defaults list: another option of the group, a group within it, or one that is placed somewhere."""
    if isinstance(entry, str):
        if entry != "_self_":
            yield from _keys(group, entry)
        return
    ((name, option),) = entry.items()
    within, _, place = str(name).partition("@")
    if place == "_here_" and isinstance(option, str):
        yield from _keys(within.lstrip("/") if within.startswith("/") else f"{group}/{within}", option)
    else:
        yield (place or within.lstrip("/")).split(".")[0]
