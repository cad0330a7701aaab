"""What a run was made with, and how long it took."""

import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from ttsadapt.callbacks.throughput import peak_memory
from ttsadapt.config.identity import code_hash
from ttsadapt.config.paths import root

PACKAGES = ("ttsadapt", "torch", "lightning", "transformers", "peft", "hydra-core", "lhotse", "speechbrain", "torchmetrics", "numpy")


class Stopwatch(L.Callback):
    """Seconds in training steps and optimiser steps made, over all attempts at a run."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self._started: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return {"seconds": self.seconds + running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def _stop(self) -> None:
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._started = None


def provenance(cfg: DictConfig, base_hash: str, corpus: str, stopwatch: Stopwatch) -> dict[str, Any]:
    return machine() | {
        "seed": cfg.seed, "base": base_hash, "data": corpus, "train_seconds": stopwatch.seconds,
        "peak_memory_gib": peak_memory()["resident_gib"],
        "cpu_seconds": time.process_time(),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Sources, packages and hardware."""
    return {
        "git": _git(), "code": code_hash(), "packages": {name: _version(name) for name in PACKAGES}, "python": platform.python_version(),
        "platform": platform.platform(), "device": _device(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def _git() -> str | None:
    run = subprocess.run(["git", "-C", str(root()), "rev-parse", "HEAD"], capture_output=True, text=True)
    return run.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
