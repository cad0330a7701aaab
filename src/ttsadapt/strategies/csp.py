"""Characteristic-specific partial fine-tuning (CSP-FT, arXiv 2501.14273): only the blocks that carry most and least train."""

from ttsadapt.analysis.ranking import Settings
from ttsadapt.strategies.partial import Partial
from ttsadapt.where.ranked import By, Ranks


class CSP(Partial):
    """Blocks are ranked once, on the untouched model, by what emotion and speaker probes read off them (sections 2.2, 2.3).

    The highest already holds most of the characteristic and the lowest has most room to learn it. Embeddings, output heads
    and all other blocks stay as they are.
    """

    where: Ranks

    def __init__(
        self,
        choose: list[str | int] | None = None,
        by: By = "mean",
        group: str | None = None,
        utterances: int = 400,
        epochs: int = 16,
        probe_lr: float = 3e-3,
        seed: int | None = 0,
        seeds: int = 1,
        lr: float | None = None,
    ) -> None:
        """`choose`: ranks of the blocks that train ("highest", "lowest", 1: the second highest ...); None: highest and lowest.

        `group` of blocks: None is the backbone's default. `seed` of the analysis: None is the run's.
        """
        analysis = Settings(group=group, utterances=utterances, epochs=epochs, lr=probe_lr, seed=seed, seeds=seeds)
        super().__init__(Ranks(list(choose or ("highest", "lowest")), by, analysis), lr)
