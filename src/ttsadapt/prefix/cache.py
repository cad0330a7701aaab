"""The output of frozen first blocks, kept for every utterance: made before training, read in every step."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.hooks import RemovableHandle

from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.bars import Bar
from ttsadapt.config.identity import code_hash
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.module import AdaptationData
from ttsadapt.errors import ConfigError
from ttsadapt.learner import Learner
from ttsadapt.prefix.check import Sample, checked, undisturbed
from ttsadapt.prefix.reader import Reader, entry_of
from ttsadapt.prefix.store import Entry, Store, size
from ttsadapt.prefix.taps import Prefix, frozen_prefixes, record

Picked = Sequence[tuple[FeatureSet, Sequence[str]]]
"""utterances that a run may see, by set"""
GIB = 2**30


class PrefixCache(Callback):
    """Blocks below everything that trains run once for each utterance, not once for each epoch.

    Exact: an utterance's states do not depend on what it is batched with, and this is checked before and while they are read.
    """

    def __init__(self, store: Store, limit: float = 8.0, half: bool = False, required: bool = True) -> None:
        """`limit`: GiB that may be taken. `half`: keep 16 bits of every number, which is no longer exact.

        `required`: where nothing can be kept, raise ConfigError; else say so once and train as if this were not there.
        """
        self.store, self.limit, self.half, self.required = store, limit, half, required
        self.reader: Reader | None = None
        self._handles: list[RemovableHandle] = []

    def start(self, learner: Learner, picked: Picked, device: torch.device | None = None) -> None:
        """Find the frozen blocks, check them on a few utterances, keep the states of all, read from now on."""
        device = device or next(learner.backbone.parameters()).device
        with undisturbed(learner):
            sample = Sample.of(*picked[0], device)
            learner.train()
            prefixes, faults = frozen_prefixes(learner, sample.collate(sample.ids[:2]))
            good, entries, more = checked(learner, prefixes, sample) if prefixes else ({}, {}, {})
            if not good:
                self._without(faults | more)
                return
            expected = self._estimate(entries, list(good), sample, picked)
            if not self._fits(learner.backbone, list(good), expected, picked):
                return
            learner.train()
            self._fill(learner, list(good), picked, device)
        self.reader = Reader(good, self.store)
        for backbone in (learner.backbone, *copies(learner)):
            self._handles += self.reader.attach(backbone)

    def stop(self) -> None:
        """Let the model compute everything again."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.reader = [], None

    def _without(self, faults: dict[str, str]) -> None:
        why = "; ".join(f"{group}: {fault}" for group, fault in faults.items())
        if self.required:
            raise ConfigError(f"prefix: no block's output can be kept ({why}): train with prefix=null")
        _say(f"prefix cache: off ({why})")

    def _estimate(self, entries: dict[str, Entry], good: Sequence[Prefix], sample: Sample, picked: Picked) -> float:
        """Bytes: the sample's share of all frames is about its share of all states."""
        groups = {p.group for p in good}
        taken = sum(size({n: t for n, t in e.items() if n.rpartition("/")[0] in groups}) for e in entries.values())
        seen = sum(sample.features.lengths[i]["frames"] for i in sample.ids)
        return taken / (2 if self.half else 1) * sum(f.lengths[i]["frames"] for f, ids in picked for i in ids) / seen

    def _fits(self, backbone: Backbone, good: Sequence[Prefix], expected: float, picked: Picked) -> bool:
        """Say what will be kept and how much that is, before any of it is made."""
        count = sum(len(ids) for _, ids in picked)
        which = ", ".join(f"{len(p.sizes)} of {len(backbone.blocks[p.group])} blocks of {p.group}" for p in good)
        what = f"prefix cache: {which}, {count:,} utterances, about {expected / GIB:.2g} GiB {self.store.place}"
        if expected <= self.limit * GIB:
            _say(what)
            return True
        if self.required:
            raise ConfigError(f"{what}, more than prefix.limit={self.limit:g}: raise it, or take prefix=disk or prefix=null")
        _say(f"{what}: off, more than prefix.limit={self.limit:g}")
        return False

    def _fill(self, learner: Learner, good: Sequence[Prefix], picked: Picked, device: torch.device) -> None:
        """Each utterance on its own: the same bits in whatever order a run, or the attempt that it resumes, meets them."""
        places = {features.key(i): (features, i) for features, ids in picked for i in ids}
        bar = Bar(places, "prefix cache", unit="utt", leave=False)
        order = sorted(places)

        def compute(key: str) -> Entry:
            features, utterance = places[key]
            bar.update()
            return entry_of(record(learner, good, to_device(features.collate([utterance]), device)), self.half)

        with bar:
            self.store.fill(order, compute, lambda: [repr(good), str(self.half), *made_by(learner, good)])

    # Lightning ---------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set, never declared
        assert isinstance(pl_module, Learner) and isinstance(data, AdaptationData)
        passes = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches / trainer.num_training_batches
        if not self.required and passes < 2:
            _say(f"prefix cache: off, as {passes:.1f} passes over the data are too few to gain from it")
            return
        with trainer.precision_plugin.forward_context():
            self.start(pl_module, picked_by(data), pl_module.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """On a GPU nobody waits for the check but at log intervals."""
        if self.reader is not None:
            self.reader.forget()
            if pl_module.device.type == "cpu" or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                self.reader.check()

    def on_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.reader is not None:
            self.reader.check()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.stop()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        self.stop()


def picked_by(data: AdaptationData) -> Picked:
    """All that training and validation may draw."""
    rehearsed = [(data.source, data.mix.ids)] if data.source is not None and data.mix is not None else []
    return [(data.train, data.train.ids), *rehearsed, *((features, features.ids) for features in data.valid.values())]


def copies(learner: Learner) -> Iterator[Backbone]:
    """Frozen copies of the model that strategies keep, as teachers: what trains in the model does not reach their first blocks either."""
    for strategy in learner.strategies.values():
        for value in vars(strategy).values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Backbone) and part is not learner.backbone:
                    yield part


def made_by(learner: Learner, prefixes: Sequence[Prefix]) -> list[str]:
    """Everything but the utterances that states depend on: code, and every frozen weight that is not in a later block."""
    backbone = learner.backbone
    later = [m for p in prefixes for m in list(backbone.blocks[p.group].values())[len(p.sizes) :]]
    others = {id(t) for m in later for t in (*m.parameters(), *m.buffers())}
    state = hashlib.blake2b()
    for name, tensor in sorted((*backbone.named_parameters(), *backbone.named_buffers())):
        if not tensor.requires_grad and id(tensor) not in others:
            state.update(name.encode())
            state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return [state.hexdigest(), code_hash(), torch.__version__, transformers.__version__]


@rank_zero_only
def _say(line: str) -> None:
    Bar.write(line)
