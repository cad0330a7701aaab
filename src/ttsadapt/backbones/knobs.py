"""How a model speaks, changed after training: temperature, top-k, guidance ... of a backbone that has them."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

from ttsadapt.config.nearest import hint
from ttsadapt.errors import ConfigError


class Knob(NamedTuple):
    """A number that synthesis reads, and what it may be."""

    place: str
    """dotted attribute of the backbone; its owner is an object with attributes, or a frozen dataclass"""
    low: float = 0.0
    high: float = math.inf
    whole: bool = False


SAMPLING = {
    "temperature": Knob("sampling.temperature"),
    "top_k": Knob("sampling.top_k", whole=True),
    "top_p": Knob("sampling.top_p", high=1.0),
    "repetition_penalty": Knob("sampling.repetition_penalty", low=0.1),
    "window": Knob("sampling.window", whole=True),
    "share": Knob("sampling.share", high=1.0),
}
"""of `decoding.Sampling`"""


def settings(backbone: Any) -> dict[str, float]:
    """What the backbone speaks with now, by knob."""
    return {name: attrgetter(knob.place)(backbone) for name, knob in backbone.knobs.items()}


def refuse_settings(backbone: Any, wanted: Mapping[str, Any]) -> None:
    """ConfigError for the first setting that the backbone does not have, or that is out of its range."""
    kind, knobs = type(backbone).__name__, backbone.knobs
    for name, value in wanted.items():
        if name not in knobs:
            why = hint(name, knobs) if knobs else ": it draws nothing, and speaks in one way only"
            raise ConfigError(f"decoding.{name}={value}: {kind} has no such setting{why}")
        knob = knobs[name]
        number = isinstance(value, int if knob.whole else int | float) and not isinstance(value, bool)
        if not number or not knob.low <= value <= knob.high:
            what = "a whole number" if knob.whole else "a number"
            below = f" to {knob.high:g}" if math.isfinite(knob.high) else " or more"
            raise ConfigError(f"decoding.{name}={value} does not fit: {kind} takes {what}, {knob.low:g}{below}")


@contextmanager
def decoding(backbone: Any, wanted: Mapping[str, Any]) -> Iterator[None]:
    """The backbone speaks with these settings for a while. ConfigError as `refuse_settings`."""
    refuse_settings(backbone, wanted)
    before = settings(backbone)
    try:
        for name, value in wanted.items():
            _turn(backbone, backbone.knobs[name].place, value)
        yield
    finally:
        for name in wanted:
            _turn(backbone, backbone.knobs[name].place, before[name])


def _turn(backbone: Any, place: str, value: Any) -> None:
    path, _, last = place.rpartition(".")
    owner = attrgetter(path)(backbone) if path else backbone
    if is_dataclass(owner):  # frozen
        above, _, name = path.rpartition(".")
        setattr(attrgetter(above)(backbone) if above else backbone, name, replace(owner, **{last: value}))  # type: ignore[type-var]
    else:
        setattr(owner, last, value)
