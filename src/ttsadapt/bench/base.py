"""How fast is one way of doing a piece of work against another: sides in turn, in one process, ratios pair by pair.

Machines are shared and clocks drift, so a figure alone says little. Every round runs all sides, the next round in reverse order
(A B, B A, ...), and what is reported is the ratio within a round: its median and its range. Peak memory is that of a process
which does nothing else.
"""

import gc
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

Work = Callable[[], int]
"""one repeat of what is measured -> units (tokens, frames) that it went through"""
Side = Callable[[], Work]
"""everything that is not measured: models, data, optimisers"""


@dataclass(frozen=True)
class Figures:
    """One repeat of one side."""

    units: int
    wall: float
    """seconds"""
    cpu: float
    """seconds of all threads of the process"""
    memory: float | None = None
    """GiB, the peak of a process of its own"""


Quantity = Callable[[Figures], float]


def speed(figures: Figures) -> float:
    """Units per CPU second."""
    return figures.units / figures.cpu


def wall_speed(figures: Figures) -> float:
    """Units per second on the clock."""
    return figures.units / figures.wall


def cost(figures: Figures) -> float:
    """CPU seconds per unit."""
    return figures.cpu / figures.units


def memory(figures: Figures) -> float:
    """Peak GiB; NaN where it was not asked for."""
    return float("nan") if figures.memory is None else figures.memory


@dataclass(frozen=True)
class Comparison:
    """quantity(side) / quantity(over), and what it has to be."""

    side: str
    over: str
    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None
    """None twice: reported without a limit"""

    @property
    def limit(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def holds(self, ratio: float) -> bool | None:
        """None without a limit."""
        if not self.limit:
            return None
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


class Case(ABC):
    """What is measured, at which sizes. The constructor's arguments are the yaml's; it does no work."""

    unit: str = "tokens"
    """what is counted"""

    @abstractmethod
    def sides(self) -> Mapping[str, Side]:
        """By name. Sides share no state: any of them may also run alone, in a process of its own.

        Equal work means equal seeds: each side draws its data and weights from generators that it makes itself.
        """

    @abstractmethod
    def comparisons(self) -> Sequence[Comparison]:
        """Ratios to report, with the limits that are required of them."""


Rounds = list[dict[str, Figures]]


def measure(work: Work) -> Figures:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    units = work()
    return Figures(units, time.perf_counter() - wall, time.process_time() - cpu)


def rounds(case: Case, pairs: int, told: Callable[[str], None] = print) -> Rounds:
    """Every side `pairs` times, in turn, after one repeat each that is not counted."""
    works = {name: build() for name, build in case.sides().items()}
    for work in works.values():
        work()
    names, done = list(works), []
    for number in range(pairs):
        figures = {name: measure(works[name]) for name in (names if number % 2 == 0 else names[::-1])}
        done.append({name: figures[name] for name in names})
        told(f"round {number + 1} of {pairs}: " + ", ".join(f"{n} {speed(f):.0f} {case.unit}/CPU s" for n, f in done[-1].items()))
    return done


def with_memory(done: Rounds, node: Mapping[str, Any], threads: int | None) -> Rounds:
    """The same figures with each side's peak memory, measured in one further process a side."""
    peaks = {name: peak_of(node, name, threads) for name in done[0]}
    return [{name: replace(figures, memory=peaks[name]) for name, figures in each.items()} for each in done]


def peak_of(node: Mapping[str, Any], side: str, threads: int | None) -> float:
    """Peak resident GiB of a process that builds `side` of the case `node` (a `_target_` and its arguments) and works once."""
    command = [sys.executable, "-m", "ttsadapt.bench.alone", json.dumps(dict(node)), side, str(threads or 0)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[-1])


def as_dict(done: Rounds) -> list[dict[str, Any]]:
    return [{name: asdict(figures) for name, figures in each.items()} for each in done]
