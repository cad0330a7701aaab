"""What sets runs of one name apart: the settings of their configs, the seed and what changes no number left out."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ttsadapt.config.identity import INFRASTRUCTURE, INFRASTRUCTURE_OF_TRAINER

Settings = dict[str, str]
"""{dotted name: value}"""
_APART = {*INFRASTRUCTURE, "seed", "hydra", *(f"trainer.{name}" for name in INFRASTRUCTURE_OF_TRAINER)}
_TARGET = "._target_"
MOST = 4
"""differences that a label names, where that tells all apart"""


def settings(path: Path) -> Settings:
    """Of the config at `path`; {} where there is none."""
    if not path.is_file():
        return {}
    flat = dict(_flat(OmegaConf.to_container(OmegaConf.load(path)), ""))
    return {k: v for k, v in flat.items() if not any(k == apart or k.startswith(f"{apart}.") for apart in _APART)}


def differences(runs: Sequence[Settings], brief: bool = False) -> list[str]:
    """For each of them, in the words of overrides, what it has that not all have; "" where there is nothing.

    Where another class was chosen, its settings follow from that and are not named. `brief`: names by their ends, "lr" for "optimizer.lr".
    """
    names = dict.fromkeys(name for one in runs for name in one)
    varied = [name for name in names if len({one.get(name) for one in runs}) > 1]
    chosen = tuple(name.removesuffix(_TARGET) + "." for name in varied if name.endswith(_TARGET))
    told = [name for name in varied if name.endswith(_TARGET) or not name.startswith(chosen or "\0")]
    called = _ends(told) if brief else {name: name.removesuffix(_TARGET) for name in told}
    whole = [[f"{called[name]}={_worded(name, one[name])}" for name in told if name in one] for one in runs]
    short = [_shortened(parts) for parts in whole]
    told_apart = len(set(map(tuple, short))) == len(set(map(tuple, whole)))
    return [", ".join(parts) for parts in (short if told_apart else whole)]


def counting(text: str) -> list[tuple[float, str]]:
    """What sorts "rank=8" before "rank=16"."""
    return [(float(part), "") if number else (math.inf, part) for part, number in _parts(text)]


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    for number, other in re.findall(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(\D+)", text):
        yield (number, True) if number else (other, False)


def _ends(names: Sequence[str]) -> dict[str, str]:
    """{name: the fewest of its last parts that no other one ends with}"""
    ends = {name: _suffixes(name.removesuffix(_TARGET)) for name in names}
    taken = Counter(end for own in ends.values() for end in own)
    return {name: next((end for end in own if taken[end] == 1), own[-1]) for name, own in ends.items()}


def _suffixes(name: str) -> list[str]:
    """Dotted, the shortest first."""
    parts = name.split(".")
    return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _worded(name: str, value: str) -> str:
    return value.rpartition(".")[2] if name.endswith(_TARGET) else value.replace("'", "")


def _shortened(parts: list[str]) -> list[str]:
    return parts if len(parts) <= MOST else [*parts[:MOST], f"{len(parts) - MOST} more"]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, "null" if value is None else str(value)
