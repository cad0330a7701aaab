"""How fast a run trains, and how much memory it takes."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs `frames_per_second`, `<unit>_per_second` of every other unit in batch["totals"], and `padding`, each log interval.

    `padding` is the share of this rank's frames that only fill up batches.

    The totals count the whole optimiser step (all ranks, all accumulated batches, target and source), so they are taken once
    a step. The clock stands still during validation.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._frames = self._padded = 0
        self._since = self._paused = 0.0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._counts, self._since = trainer.global_step, {}, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        real, padded = batch.get("frames_padded", (0, 0))
        self._frames, self._padded = self._frames + real, self._padded + padded
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for unit, counts in batch.get("totals", {}).items():
            self._counts[unit] = self._counts.get(unit, 0) + int(sum(counts))
        if self._step % trainer.log_every_n_steps == 0 and self._counts:  # type: ignore[attr-defined]  # set, never declared
            seconds = max(time.perf_counter() - self._since, 1e-9)
            share = {"padding": 1 - self._frames / self._padded} if self._padded else {}
            pl_module.log_dict({f"{unit}_per_second": n / seconds for unit, n in self._counts.items()} | share, batch_size=1)
            self._counts, self._since, self._frames, self._padded = {}, time.perf_counter(), 0, 0


def peak_memory() -> dict[str, float]:
    """GiB that this process has held at most: resident, and on the GPU where there is one."""
    peak = {"resident_gib": _resident() / 2**30}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peak


def _resident() -> int:
    """Bytes. On Linux `ru_maxrss` is no less than what the parent held when it started this process: its pages count until exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
