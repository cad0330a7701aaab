"""Which of the metrics that were asked for can be computed on this machine; the others are named once and left out."""

import os
from collections.abc import Mapping

from hydra.utils import instantiate
from omegaconf import DictConfig

from ttsadapt.metrics.base import UtteranceMetric

TOLD = "TTSADAPT_TOLD"
"""lines that were said already, in this process or in one that started it: a run is many processes, a user reads one message"""


def assembled(nodes: DictConfig | Mapping[str, object]) -> dict[str, UtteranceMetric]:
    """{name: metric} of a config's `metric`, without those whose models are not here."""
    return available({str(name): instantiate(node) for name, node in nodes.items()})


def available(metrics: Mapping[str, UtteranceMetric]) -> dict[str, UtteranceMetric]:
    """Those that miss nothing; each line about what is missing is printed once, however many metrics need it."""
    lacking: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if line := metric.missing():
            lacking.setdefault(line, []).append(name)
    for line, names in lacking.items():
        tell(f"left out: {', '.join(names)}: {line}")
    absent = {name for names in lacking.values() for name in names}
    return {name: metric for name, metric in metrics.items() if name not in absent}


def tell(line: str) -> None:
    """Print it, unless it was said before."""
    said = os.environ.get(TOLD, "").split("\n")
    if line not in said:
        os.environ[TOLD] = "\n".join([*filter(None, said), line])
        print(line, flush=True)
