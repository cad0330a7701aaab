"""What every optimiser step draws: length-bucketed target utterances, joined by a stated share of rehearsed ones.

lhotse's samplers do the bucketing. What is added here: a length, exact resume, the mix of two streams, and a draw of the whole
step that is split over ranks and accumulated batches afterwards, so that the numbers do not depend on how it is split.
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from torch.utils.data import Dataset, Sampler

from ttsadapt.backbones.base import SOURCE, TARGET, Batch, Frontend
from ttsadapt.data.features import FeatureSet, collate, totals
from ttsadapt.errors import ConfigError
from ttsadapt.strategies.base import Mix

SMALLEST_STEP = 4
"""utterances; what a bucket leaves over joins the next step when it is less than this"""


class Drawn(NamedTuple):
    """One rank's part of one (accumulated) batch."""

    rows: list[tuple[int, str]]
    """(origin, utterance id)"""
    totals: dict[str, list[int]]
    """supervised positions of the whole optimiser step, by unit and origin"""
    share: float
    """1 / (ranks x accumulated batches)"""


def bucketed(features: FeatureSet, ids: Sequence[str], frames: int, seed: int, epoch: int) -> DynamicBucketingSampler | DynamicCutSampler:
    """lhotse's bucketing over frame counts, for one pass; one rank, since the step is split later.

    The order is drawn here: with its own `shuffle` lhotse 1.33 loses a cut per batch, one utterance in ten of a small corpus.
    It may also end before all part-filled buckets were given: `StepSampler` adds what was left.
    """
    draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = [ids[k] for k in torch.randperm(len(ids), generator=draw).tolist()]
    cuts = CutSet.from_cuts(MonoCut(i, start=0.0, duration=float(features.lengths[i]["frames"]), channel=0, supervisions=[]) for i in order)
    common = {"max_duration": float(frames), "shuffle": False, "seed": seed, "rank": 0, "world_size": 1}
    buckets = min(10, len(ids) // 16)
    with warnings.catch_warnings():  # metadata is in memory already: reading it lazily would gain nothing
        warnings.filterwarnings("ignore", message=".*eagerly read CutSet")
        if buckets < 2:
            sampler = DynamicCutSampler(cuts, **common)
        else:
            sampler = DynamicBucketingSampler(cuts, num_buckets=buckets, buffer_size=10_000, sync_buckets=False, **common)
    sampler.set_epoch(epoch)
    return sampler


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
        waiting: list[str] = []
        for ids in self._whole_pass(epoch):
            waiting += ids
            if len(waiting) >= SMALLEST_STEP:
                yield waiting
                waiting = []
        if waiting and len(self.target) < SMALLEST_STEP:
            yield (waiting * SMALLEST_STEP)[: max(len(waiting), self.ranks * self.accumulate)]

    def _whole_pass(self, epoch: int) -> Iterator[list[str]]:
        left = set(self.target.ids)
        for cuts in bucketed(self.target, self.target.ids, self.frames, self.seed, epoch):
            left -= {cut.id for cut in cuts}
            yield [cut.id for cut in cuts]
        rest = sorted(left, key=lambda i: (self.target.lengths[i]["frames"], i))
        while rest:
            room = max(1, self.frames // self.target.lengths[rest[-1]]["frames"])
            yield rest[-room:]
            del rest[-room:]

    def _batches(self) -> Iterator[Drawn]:
        rehearsed, parts, epoch = self._rehearsal(), self.ranks * self.accumulate, 0
        while True:
            for ids in self._pass(epoch):
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
            frames = self.source.lengths[self.order[-1]]["frames"]
            if self.due < frames / 2:
                return picked
            picked.append(self.order.pop())
            self.due -= frames


class StepDataset(Dataset[Batch]):
    """Collates what the sampler drew."""

    def __init__(self, frontend: Frontend, target: FeatureSet, source: FeatureSet | None, rehearsed: bool) -> None:
        self.frontend, self.sets, self.rehearsed = frontend, {TARGET: target, SOURCE: source}, rehearsed

    def __getitem__(self, drawn: Drawn) -> Batch:
        batch = collate(self.frontend, [(self.sets[origin], i) for origin, i in drawn.rows])  # type: ignore[misc]
        origin = torch.tensor([o for o, _ in drawn.rows])
        return batch | {"origin": origin, "totals": drawn.totals, "share": drawn.share, "rehearsed": self.rehearsed}
