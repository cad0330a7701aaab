"""How a layer analysis is made, and what it says: the weight of every block, how sure that is, how the blocks rank."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from ttsadapt.analysis.base import Analysis
from ttsadapt.errors import UserError


@dataclass(frozen=True)
class Settings(Analysis):
    """How the probes are made and trained; as an analysis of its own it ranks every group of blocks."""

    group: str | None = None
    """of blocks; None: the backbone's default, the last that it names"""
    utterances: int = 400
    """drawn from the data"""
    epochs: int = 16
    batch: int = 16
    """utterances"""
    lr: float = 3e-3
    """peak of Adam's, after a warm-up over 8 % of the steps; the paper's 5e-4 is for many more steps"""
    weights_lr: float = 3e-2
    """the same for the weights over blocks, which would hardly leave their uniform start in so few steps"""
    clip: float = 10.0
    """of the gradient's norm"""
    width: int = 64
    """channels of the heads' convolutions"""
    kernel: int = 5
    pool: int = 5
    """positions averaged into one"""
    held_out: float = 0.2
    """share of the utterances that the probes are judged by"""
    frames: int = 4000
    """of a batch through the backbone"""
    memory: float = 4.0
    """GiB that the block outputs may take"""
    half: bool = False
    """keep them in half precision"""
    seed: int | None = 0
    """of the utterances and of the first probes, apart from the run's, so that runs of all seeds share one analysis; None: the run's"""
    seeds: int = 1
    """probes are trained so many times, on one set of block outputs; weights are means over them"""

    def __post_init__(self) -> None:
        for name in ("utterances", "epochs", "batch", "seeds", "pool"):
            if getattr(self, name) < 1:
                raise UserError(f"layer analysis: {name}={getattr(self, name)}: give a number above 0")

    def analyze(self, cfg: DictConfig) -> None:
        from ttsadapt.finished import rank_blocks  # the base is needed for it, and all that this takes

        rank_blocks(cfg, self)


@dataclass
class Ranking:
    """What `layers.json` holds. Lists run over `blocks`, from input to output."""

    group: str
    blocks: list[str]
    emotion: list[float]
    """softmax weights, means over seeds; empty when the data knows one emotion only"""
    speaker: list[float]
    mean: list[float]
    """of those weights whose probe beats chance (equation 3); empty when none does"""
    chosen: list[str] = field(default_factory=list)
    probe: dict[str, Any] = field(default_factory=dict)
    """accuracy and chance of each label on held-out utterances, means over seeds; "used": the labels that beat chance"""
    spread: dict[str, list[float]] = field(default_factory=dict)
    """standard deviations over seeds, as emotion, speaker and mean; empty for one seed"""
    stability: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`stability` of the same; empty for one seed"""
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def refusal(self, by: str = "mean") -> str | None:
        """Why these blocks cannot be ranked, in one line; None when they can."""
        used = self.probe["used"]
        if by in used or (by == "mean" and used):
            return None
        judged = [n for n in ("emotion", "speaker") if self.probe[f"{n}_accuracy"] is not None]
        found = ", ".join(f"{n} {self.probe[f'{n}_accuracy']:.0%} (chance {self.probe[f'{n}_chance']:.0%})" for n in judged)
        what = "no label" if by == "mean" or not used else f"no {by}"
        todo = f"; by={used[0]} can be" if used else ""
        return (
            f"layer analysis: {what} can be read off the {self.group} blocks better than by chance ({found} of {self.probe['held_out']} "
            f"held-out utterances): train the base longer, or raise utterances or epochs{todo}"
        )

    def order(self, by: str = "mean") -> list[str]:
        """Blocks from the one that carries most to the one that carries least, by "emotion", "speaker" or their "mean".

        UserError when the probe did no better than chance.
        """
        if (refusal := self.refusal(by)) is not None:
            raise UserError(refusal)
        weights: list[float] = getattr(self, by)
        return [self.blocks[i] for i in sorted(range(len(weights)), key=lambda i: -weights[i])]


def stability(weights: Sequence[Sequence[float]], blocks: Sequence[str]) -> dict[str, Any]:
    """Does another seed rank the blocks alike? `weights`: (seeds, blocks), at least two seeds.

    "spearman": mean rank correlation of two seeds (None for fewer than two blocks); "highest_changes" and "lowest_changes": share of
    the pairs of seeds that disagree about that block; "highest" and "lowest": {block: for how many seeds it was that}.
    """
    from scipy.stats import spearmanr

    table = np.asarray(weights)
    pairs = list(combinations(range(len(table)), 2))
    firsts, lasts = table.argmax(1).tolist(), table.argmin(1).tolist()
    correlations = [float(spearmanr(table[a], table[b]).statistic) for a, b in pairs] if table.shape[1] > 1 else []
    return {
        "spearman": float(np.mean(correlations)) if correlations else None,
        "highest_changes": sum(firsts[a] != firsts[b] for a, b in pairs) / len(pairs),
        "lowest_changes": sum(lasts[a] != lasts[b] for a, b in pairs) / len(pairs),
        "highest": {blocks[i]: n for i, n in Counter(firsts).most_common()},
        "lowest": {blocks[i]: n for i, n in Counter(lasts).most_common()},
    }
