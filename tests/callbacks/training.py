"""A small training run with all that makes exact resume hard; also a program, so that it can be killed.

Dropout, noise drawn in the collate function, two accumulated batches a step (and an odd batch at the end of an epoch),
shuffled epochs, validation within and at the end of epochs that draws random numbers, a learning-rate schedule.
"""

import argparse
import csv
import io
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

from ttsadapt.callbacks.checkpoint import Checkpoints, SafeCheckpointIO, last_checkpoint
from ttsadapt.callbacks.guard import FiniteLoss
from ttsadapt.callbacks.listening import Listening
from ttsadapt.callbacks.state import RandomState
from ttsadapt.callbacks.throughput import Throughput
from ttsadapt.loggers.csv import CSVLogger

BATCHES = 7


class Rows(torch.utils.data.Dataset):
    """Gives what it is asked for: the sampler draws whole batches."""

    def __getitem__(self, rows: list[int]) -> list[int]:
        return rows


class Shuffled(torch.utils.data.Sampler):
    """Draws batches; has a length, a new order each epoch, and a state."""

    def __init__(self) -> None:
        self.epoch = self.at = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.at = epoch, 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng(self.epoch).permutation(BATCHES * 4).reshape(BATCHES, 4)
        while self.at < BATCHES:
            self.at += 1
            yield order[self.at - 1].tolist()
        self.at = 0

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "at": self.at}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.at = state["epoch"], state["at"]


def collate(rows: list[int]) -> dict:
    x = torch.tensor(rows, dtype=torch.float32)[:, None].repeat(1, 6) / 28
    noise = torch.randn_like(x) * 0.1 + random.random() + np.random.rand()
    return {"x": x + noise, "totals": {"frames": [10 * len(rows), 0], "tokens": [3 * len(rows), 0]}}


class Module(lightning.LightningModule):
    def __init__(self, bad_step: int | None = None, gradient_only: bool = False, naps: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))
        self.bad_step, self.gradient_only, self.naps = bad_step, gradient_only, naps

    def setup(self, stage: str) -> None:
        torch.manual_seed(3 + self.global_rank)  # every rank has its own dropout, so every rank's generator matters

    def training_step(self, batch: dict, index: int) -> dict:
        time.sleep(self.naps)
        output = self.net(batch["x"])
        terms = {"task": output.square().mean(), "kd": 0.1 * (output - 1).abs().mean()}
        if self.bad_step is not None and self.global_step + 1 >= self.bad_step:
            if self.gradient_only:  # the value is finite, the slope is not
                terms["kd"] = terms["kd"] + (terms["kd"] * 0).sqrt()
            else:
                terms["kd"] = terms["kd"] * float("nan")
        loss = sum(terms.values())
        self.log_dict({f"train/{k}": v.detach() for k, v in (terms | {"loss": loss}).items()})
        return {"loss": loss, "terms": {k: v.detach() for k, v in terms.items()}}

    def validation_step(self, batch: dict, index: int) -> None:
        self.log("valid/target/loss", (self.net(batch["x"]) + torch.randn(())).square().mean(), batch_size=4)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train(
    folder: Path,
    steps: int = 18,
    every: int = 1,
    module: Callable[[], Module] = Module,
    saver: SafeCheckpointIO | None = None,
    loggers: list | None = None,
    callbacks: list | None = None,
    guard: FiniteLoss | None = None,
    monitor: str = "valid/target/loss",
    mode: str = "min",
    patience: int | None = None,
    listening: Listening | None = None,
    workers: int = 0,
    **options,
) -> tuple[Module, lightning.Trainer]:
    lightning.seed_everything(3, verbose=False)
    model = module()
    loader = StatefulDataLoader(Rows(), sampler=Shuffled(), batch_size=None, collate_fn=collate, num_workers=workers)
    valid = torch.utils.data.DataLoader(list(range(8)), batch_size=4, collate_fn=collate)
    saved = Checkpoints(folder / "checkpoints", every, monitor, mode, patience, listening)
    parts = [RandomState(), guard or FiniteLoss(), Throughput(), *(callbacks or []), saved]
    common = {
        "accelerator": "cpu", "devices": 1, "max_steps": steps, "max_epochs": -1, "accumulate_grad_batches": 2, "val_check_interval": 4,
        "log_every_n_steps": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    trainer = lightning.Trainer(
        **common | options,
        default_root_dir=folder,
        logger=loggers or [CSVLogger(folder)],
        callbacks=parts,
        plugins=[saver or SafeCheckpointIO()],
    )
    trainer.fit(model, loader, valid, ckpt_path=last_checkpoint(folder), weights_only=True)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), folder / "final.pt")
    return model, trainer


class SlowIO(SafeCheckpointIO):
    """At its `at`th checkpoint it writes half of it, says so by a file, and waits to be killed."""

    def __init__(self, mark: Path, at: int) -> None:
        self.mark, self.at, self.writes = mark, at, 0

    def write(self, checkpoint: dict, file: io.BufferedWriter) -> None:
        self.writes += 1
        if self.writes == self.at and not self.mark.exists():
            whole = io.BytesIO()
            torch.save(checkpoint, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            self.mark.touch()
            signal.pause()
        super().write(checkpoint, file)


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without what the wall clock decides."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith("_per_second")} for row in csv.DictReader(file)]


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits and logged the same."""
    a, b = (torch.load(folder / "final.pt", weights_only=True) for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and metrics(one) == metrics(other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--naps", type=float, default=0.0)
    parser.add_argument("--devices", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ranks = {"devices": asked.devices, "strategy": "ddp", "use_distributed_sampler": False} if asked.devices > 1 else {}
    train(asked.folder, module=partial(Module, naps=asked.naps), **ranks)
