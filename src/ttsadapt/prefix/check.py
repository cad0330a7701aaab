"""Whether the output of frozen blocks is a function of the utterance alone: found out on a few, not assumed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsadapt.backbones.base import Batch, to_device
from ttsadapt.callbacks.state import capture, restore
from ttsadapt.data.features import FeatureSet
from ttsadapt.heads import Heads
from ttsadapt.learner import Learner
from ttsadapt.prefix.layout import place, prints, tolerance
from ttsadapt.prefix.reader import Loaded, Reader, entry_of
from ttsadapt.prefix.store import Entry
from ttsadapt.prefix.taps import Prefix, predicted, record

DRAWN = "its input is not the same in every batch (something is drawn at random)"
MIXED = "its output is not the same in every batch"
READ = "its blocks are also read elsewhere"


@dataclass
class Sample:
    """A few utterances, from the shortest to the longest."""

    features: FeatureSet
    ids: list[str]
    device: torch.device

    @classmethod
    def of(cls, features: FeatureSet, ids: Sequence[str], device: torch.device, count: int = 8) -> "Sample":
        ordered = sorted(ids, key=lambda i: (features.lengths[i]["frames"], i))
        step = max(1, (len(ordered) - 1) / max(count - 1, 1))
        return cls(features, list(dict.fromkeys(ordered[round(k * step)] for k in range(min(count, len(ordered))))), device)

    def collate(self, ids: Sequence[str]) -> Batch:
        return to_device(self.features.collate(ids), self.device)

    @property
    def keys(self) -> list[str]:
        return [self.features.key(i) for i in self.ids]


def checked(
    learner: Learner, prefixes: Sequence[Prefix], sample: Sample
) -> tuple[dict[Prefix, torch.dtype], dict[str, Entry], dict[str, str]]:
    """The prefixes that can be kept with their states' types, what was kept of the sample, and why others cannot be."""
    learner.train()
    alone = {i: record(learner, prefixes, sample.collate([i])) for i in sample.ids}
    entries = {key: entry_of(alone[i]) for key, i in zip(sample.keys, sample.ids)}
    good, faults = {}, {}
    for prefix in prefixes:
        dtype = alone[sample.ids[0]][prefix.group].states.dtype
        fault = _varies(learner, prefix, sample, entries) or _differs(learner, Reader({prefix: dtype}, entries), sample)
        if fault:
            faults[prefix.group] = fault
        else:
            good[prefix] = dtype
    return good, entries, faults


def _varies(learner: Learner, prefix: Prefix, sample: Sample, entries: Mapping[str, Entry]) -> str | None:
    """Compare batches, padded and drawn anew, with the utterances on their own."""
    for ids in (sample.ids, sample.ids[::-1], sample.ids[::2]):
        seen = record(learner, [prefix], sample.collate(ids))[prefix.group]
        own = [entries[sample.features.key(i)] for i in ids]
        loaded = Loaded.of(own, prefix.group, seen.states.device, seen.states.dtype)
        share = tolerance(seen.inputs)
        places, found = place(prints(seen.inputs), loaded.inputs, loaded.rows, share)
        if not found:
            return DRAWN
        if not _near(seen.states[loaded.rows.row, places], loaded.states, share):
            return MIXED
    return None


def _differs(learner: Learner, reader: Reader, sample: Sample) -> str | None:
    """Compare the loss of every position with and without what was kept; in eval mode, for what trains may draw at random."""
    learner.eval()
    batch = sample.collate(sample.ids)
    share = tolerance(next(learner.backbone.parameters()))
    with torch.no_grad():
        whole = _losses(predicted(learner, batch))
        with reader.reading(learner.backbone, batch):
            read = _losses(predicted(learner, batch))
    learner.train()
    same = whole.keys() == read.keys() and all(_near(read[n], whole[n], share) for n in whole)
    return None if same and reader.right else READ


def _losses(heads: Heads) -> dict[str, Tensor]:
    return {name: head.per_position() for name, head in heads.items() if head.count}


def _near(a: Tensor, b: Tensor, share: float) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= share * b.float().square().mean().sqrt()).all())


@contextmanager
def undisturbed(learner: Learner) -> Iterator[None]:
    """What runs inside leaves no trace: generators, modes and buffers (running statistics, counted passes) are as before."""
    drawn, modes = capture(), {module: module.training for module in learner.modules()}
    names = {name for name, _ in learner.named_buffers()}
    buffers = {name: buffer.clone() for name, buffer in learner.state_dict().items() if name in names}
    try:
        yield
    finally:
        restore(drawn)
        learner.load_state_dict(buffers, strict=False)
        for module, mode in modes.items():
            module.training = mode
