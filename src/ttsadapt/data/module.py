"""The data of one run for Lightning: a resumable training stream and fixed validation batches."""

from collections.abc import Mapping

import lightning as L
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ttsadapt.backbones.base import Batch, to_device
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.sampling import StepDataset, StepSampler
from ttsadapt.strategies.base import Mix


def _first(items: list[Batch]) -> Batch:
    return items[0]


class AdaptationData(L.LightningDataModule):
    """`train` is what is learnt; `source` is what may be rehearsed; `valid` are named sets, validated whole on every rank."""

    def __init__(
        self,
        train: FeatureSet,
        source: FeatureSet | None,
        valid: Mapping[str, FeatureSet],
        mix: Mix | None,
        frames: int,
        seed: int,
        accumulate: int = 1,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.source, self.valid, self.mix = train, source, dict(valid), mix
        self.frames, self.seed, self.accumulate, self.workers = frames, seed, accumulate, workers

    def train_dataloader(self) -> StatefulDataLoader:
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = StepSampler(self.train, self.frames, self.seed, self.source, self.mix, rank, ranks, self.accumulate)
        dataset = StepDataset(self.train.frontend, self.train, self.source, self.mix is not None)
        return StatefulDataLoader(dataset, sampler=sampler, batch_size=None, num_workers=self.workers)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return to_device(batch, device)

    def val_dataloader(self) -> list[DataLoader]:
        return [
            DataLoader(features.fixed(self.frames), batch_size=1, collate_fn=_first)  # type: ignore[arg-type]
            for features in self.valid.values()
        ]
