"""Where a run stands: a bar on a terminal, a line every ten seconds in a log."""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm


class Progress(Callback):
    """step/total, loss and its terms, frames/s. Values are read off the device only when they are shown."""

    def __init__(self, every_seconds: float | None = None, stream: TextIO | None = None) -> None:
        """`every_seconds`: between two updates; None: 0.5 on a terminal, 10 elsewhere."""
        self.stream = stream or sys.stderr
        self.tty = self.stream.isatty()
        self.every = every_seconds if every_seconds is not None else (0.5 if self.tty else 10.0)
        self._bar: tqdm | None = None
        self._shown = self._began = 0.0
        self._frames = self._step = self._first = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = self._began = time.monotonic()
        self._frames, self._step, self._first = 0, trainer.global_step, trainer.global_step
        if trainer.is_global_zero and self.tty:
            total = _total(trainer)
            self._bar = tqdm(total=total, initial=trainer.global_step, desc="train", unit="step", file=self.stream, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._frames += int(sum(batch.get("totals", {}).get("frames", (0,)))) if isinstance(batch, Mapping) else 0
        if time.monotonic() - self._shown >= self.every or self._step == trainer.max_steps:
            self._show(trainer, outputs)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_description("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_description("train")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _show(self, trainer: Trainer, outputs: Any) -> None:
        now = time.monotonic()
        values = _values(outputs) | ({"frames/s": self._frames / max(now - self._began, 1e-9)} if self._frames else {})
        self._shown = now
        text = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(self._step - self._bar.n)
            return
        total, seconds = _total(trainer), (now - self._began) / (self._step - self._first)
        left = f", {(total - self._step) * seconds:.0f} s left" if total else ""
        print(f"train: step {self._step}/{total or '?'}{left}: {text}", file=self.stream, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _total(trainer: Trainer) -> int | None:
    total = trainer.estimated_stepping_batches
    return int(total) if total != float("inf") else None


def _values(outputs: Any) -> dict[str, float]:
    """Scalars of {"loss": (), "terms": {name: ()}}; `loss` as it is, not divided by the accumulated batches."""
    if not isinstance(outputs, Mapping):
        return {}
    terms = outputs.get("terms", {})
    loss = sum(terms.values()) if terms else outputs.get("loss")
    named = {"loss": loss} | (dict(terms) if len(terms) > 1 else {})
    return {k: float(v) for k, v in named.items() if isinstance(v, Tensor | float | int)}
