"""What every optimiser step draws: target utterances of like length, joined by a stated share of rehearsed ones.

A pass over the target sorts by length, cuts into steps and shuffles these. Lengths are blurred before they are sorted, so that
an utterance meets others in every pass. (lhotse's bucketing left 7 to 50 % of the frames to padding, at the lengths of speech
corpora, and part-filled buckets over.) The whole step is drawn, then split over ranks and accumulated batches, so that the
numbers do not depend on how it is split; its state is how far it came, so that it resumes exactly.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from ttsadapt.backbones.base import SOURCE, TARGET, Batch, Frontend
from ttsadapt.data.features import FeatureSet, collate, totals
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Mix

SMALLEST_STEP = 4
"""utterances of a step: it must be possible to split it"""


class Drawn(NamedTuple):
    """One rank's part of one (accumulated) batch."""

    rows: list[tuple[int, str]]
    """(origin, utterance id)"""
    totals: dict[str, list[int]]
    """supervised positions of the whole optimiser step, by unit and origin"""
    share: float
    """1 / (ranks x accumulated batches)"""


BLUR = 0.02
"""of an utterance's length, either way: about as much padding as it costs"""


def bucketed(frames: Sequence[int], budget: int, smallest: int, generator: torch.Generator) -> list[list[int]]:
    """Indices in groups of like length, all of them once, the groups in random order.

    A group holds at most `budget` frames with its padding, or `smallest` utterances where that is more.
    """
    lengths = torch.tensor(frames, dtype=torch.float64)
    blurred = lengths * (1 + BLUR * (2 * torch.rand(len(frames), generator=generator, dtype=torch.float64) - 1))
    groups: list[list[int]] = []
    longest = 0
    for i in blurred.argsort(descending=True).tolist():
        longest = max(longest, frames[i]) if groups else frames[i]
        if not groups or (len(groups[-1]) >= smallest and longest * (len(groups[-1]) + 1) > budget):
            groups.append([])
            longest = frames[i]
        groups[-1].append(i)
    if len(groups) > 1 and len(groups[-1]) < smallest:
        rest = groups.pop()
        groups[-1] += rest
    return [groups[k] for k in torch.randperm(len(groups), generator=generator).tolist()]


class StepSampler(Sampler[Drawn]):
    """An endless stream of optimiser steps, cut into epochs of fixed length; its state is the number of batches drawn."""

    def __init__(
        self,
        target: FeatureSet,
        frames: int,
        seed: int,
        source: FeatureSet | None = None,
        mix: Mix | None = None,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
    ) -> None:
        """`frames`: of the target, in an optimiser step over all ranks; rehearsal comes on top of them."""
        self.target, self.frames, self.seed, self.source, self.mix = target, frames, seed, source, mix
        self.rank, self.ranks, self.accumulate = rank, ranks, accumulate
        if ranks * accumulate > SMALLEST_STEP:
            raise ConfigError(
                f"trainer.devices x trainer.accumulate = {ranks * accumulate}: a step may hold only {SMALLEST_STEP} utterances; "
                "lower one of them"
            )
        self.drawn = 0
        self._stream: Iterator[Drawn] | None = None
        self._fresh = True

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of an epoch: those of the first pass over the target."""
        return sum(1 for _ in self._pass(0))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> "StepSampler":
        self._fresh = True
        return self

    def __next__(self) -> Drawn:
        if self.drawn % len(self) == 0 and not self._fresh:
            raise StopIteration
        if self._stream is None:
            self._stream = self._batches()
            for _ in range(self.drawn):  # metadata only: a million steps are seconds
                next(self._stream)
        self._fresh = False
        self.drawn += 1
        return next(self._stream)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn, self._stream = int(state["drawn"]), None

    def _pass(self, epoch: int) -> Iterator[list[str]]:
        """One pass over the target in steps of at least `SMALLEST_STEP` utterances."""
        ids = self.target.ids
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        for group in bucketed([self.target.frames[i] for i in ids], self.frames, SMALLEST_STEP, generator):
            few = [ids[k] for k in group]  # fewer than a step must have only when there are no more
            yield few if len(few) >= SMALLEST_STEP else (few * SMALLEST_STEP)[: max(len(few), self.ranks * self.accumulate)]

    def _batches(self) -> Iterator[Drawn]:
        rehearsed, parts, epoch = self._rehearsal(), self.ranks * self.accumulate, 0
        while True:
            for some in self._pass(epoch):
                first = self.rank * len(some) // self.ranks
                for i in some[first:]:  # ranks that make features as they go begin with their own part, and find the others' made
                    self.target.usable(i)
                if not (ids := [i for i in some if self.target.usable(i)]):
                    continue
                old = rehearsed.draw([self.target.lengths[i]["frames"] for i in ids]) if rehearsed else []
                rows = [(TARGET, i) for i in ids] + [(SOURCE, i) for i in old]
                counts = totals([(o, (self.source if o == SOURCE else self.target).lengths[i]) for o, i in rows])  # type: ignore[union-attr]
                for part in range(self.rank, parts, self.ranks):
                    yield Drawn(rows[part::parts], counts, 1 / parts)
            epoch += 1

    def _rehearsal(self) -> "Rehearsed | None":
        if self.mix is None or self.source is None:
            return None
        return Rehearsed(self.source, self.mix, self.seed)


class Rehearsed:
    """Source utterances in an endless shuffled order, as many as keep their share of all frames drawn so far."""

    def __init__(self, source: FeatureSet, mix: Mix, seed: int) -> None:
        self.source, self.mix = source, mix
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.due = 0.0
        self.order: list[str] = []

    def draw(self, target_frames: Sequence[int]) -> list[str]:
        """What joins a step with these target frames: the debt is carried over, and never exceeds half an utterance.

        Over any 50 steps the share is then exact to 1 % if no utterance is longer than half a step's target frames / (1 - share)^2;
        beyond that no order of whole utterances could do it.
        """
        self.due += sum(target_frames) * self.mix.share / (1 - self.mix.share)
        picked: list[str] = []
        while True:
            if not self.order:
                shuffled = torch.randperm(len(self.mix.ids), generator=self.generator).tolist()
                self.order = [self.mix.ids[i] for i in shuffled]
            if not self.source.usable(self.order[-1]):
                self.order.pop()
                continue
            frames = self.source.lengths[self.order[-1]]["frames"]
            if self.due < frames / 2:
                return picked
            picked.append(self.order.pop())
            self.due -= frames


class StepDataset(Dataset[Batch]):
    """Collates what the sampler drew."""

    def __init__(self, frontend: Frontend, target: FeatureSet, source: FeatureSet | None, rehearsed: bool) -> None:
        """A batch says of itself `frames_padded`: its frames without and with padding."""
        self.frontend, self.sets, self.rehearsed = frontend, {TARGET: target, SOURCE: source}, rehearsed

    def __getitem__(self, drawn: Drawn) -> Batch:
        batch = collate(self.frontend, [(self.sets[origin], i) for origin, i in drawn.rows])  # type: ignore[misc]
        origin = torch.tensor([o for o, _ in drawn.rows])
        frames = [self.sets[o].lengths[i]["frames"] for o, i in drawn.rows]  # type: ignore[union-attr]
        step = {"totals": drawn.totals, "share": drawn.share, "rehearsed": self.rehearsed}
        return batch | {"origin": origin, "frames_padded": (sum(frames), max(frames) * len(frames))} | step
