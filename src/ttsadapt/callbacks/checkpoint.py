"""Checkpoints that are never half-written, and the moments at which training can be taken up again exactly."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from ttsadapt.callbacks.listening import Listening
from ttsadapt.errors import CheckpointError, ConfigError, UserError
from ttsadapt.files import replacing
from ttsadapt.loggers.base import RunLogger


def last_checkpoint(run: Path) -> Path | None:
    """Where the run in this folder goes on, if it ever got as far as a checkpoint."""
    path = run / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


class SafeCheckpointIO(CheckpointIO):
    """Temporary name, fsync, rename: there is a whole checkpoint at every moment. Reads tensors and plain containers only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                self.write(checkpoint, file)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}): cure that and start again; the old file is whole") from error

    def write(self, checkpoint: dict[str, Any], file: io.BufferedWriter) -> None:
        """torch.save hides why a write failed behind a RuntimeError of its zip writer: the first OSError is raised instead."""
        sink = _Sink(file)
        try:
            torch.save(checkpoint, sink)  # type: ignore[arg-type]  # it asks a file for no more than these two methods
            file.flush()
        except Exception as error:
            raise (sink.failure or error) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist: name a run that has been trained")
        try:
            _verify(path)
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        except Exception as error:  # a dozen kinds: zip reader, unpickler, index and key errors of a cut or foreign file
            reason = str(error).strip().partition("\n")[0][:120]
            raise CheckpointError(f"{path} is not a whole checkpoint ({reason}): delete it and run the command again") from error
        if not isinstance(checkpoint, dict) or not {"state_dict", "loops", "global_step"} <= checkpoint.keys():
            raise CheckpointError(f"{path} is not a checkpoint of a training run: give the last.ckpt or best.ckpt of a run folder")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _verify(path: Path) -> None:
    """torch.load looks at no checksum of a tensor: a flipped bit would go unseen."""
    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{bad} has a wrong checksum")


class _Sink:
    """A file for torch.save that remembers why it could not be written."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self.file.flush()


class Checkpoints(Checkpoint):
    """`last.ckpt` every `every` optimiser steps and at the end (resume); `best.ckpt` (weights) at the best validation.

    With `patience`, training stops after so many validations that knew the monitored value (NaN is not) and did not better it. Lightning's
    EarlyStopping forgets, when a run that it has stopped is started again, that it has, and counts values of earlier validations
    again where the monitored one is not known each time.

    A step is saved when all that belongs to it is done: its row logged, and the validation that follows it, if one does.
    Otherwise a run resumed from there would lack that row or skip that validation. Never between the batches of one
    optimiser step. The training loader must have a length: without one Lightning fetches a batch ahead of what is saved.
    """

    def __init__(
        self,
        folder: Path | str,
        every: int = 100,
        monitor: str = "valid/target/loss",
        mode: str = "min",
        patience: int | None = None,
        listening: Listening | None = None,
    ) -> None:
        """`mode`: "min" or "max". `listening`: what logs `monitor`, if it is no loss, and not at each validation perhaps."""
        if every < 1 or mode not in ("min", "max"):
            raise ConfigError(f"checkpoints: every={every} must be at least 1 and mode={mode!r} 'min' or 'max'")
        self.folder, self.every, self.monitor, self.mode = Path(folder), every, monitor, mode
        self.patience, self.listening = patience, listening
        self.best: float | None = None
        self.best_step = self.waited = 0
        self._step = self._saved = 0
        self._due = False

    @property
    def last_path(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]
        self.best_step, self.waited = state.get("best_step", 0), state.get("waited", 0)

    def told(self) -> str:
        """Once something was best."""
        stopped = ", and training stopped early" if self.stopped else ""
        return f"{self.monitor} was best at step {self.best_step} ({self.best:.4g}){stopped}"

    @property
    def stopped(self) -> bool:
        """Whether patience is at an end."""
        return self.patience is not None and self.waited >= self.patience

    def summary(self) -> dict[str, Any]:
        """For summary.json: what was monitored, its best value and after how many steps that was."""
        best = {"step": self.best_step, "value": self.best} if self.best is not None else None
        return {"monitor": self.monitor, "mode": self.mode, "best": best, "stopped_early": self.stopped}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            for left in self.folder.glob(".*.ckpt.*.tmp"):  # of a process that was killed while writing
                left.unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = self._saved = trainer.global_step
        trainer.should_stop = trainer.should_stop or self.stopped
        if trainer.global_step == 0 and trainer.is_global_zero:
            self.best_path.unlink(missing_ok=True)  # of an attempt that starts again
        for logger in _loggers(trainer):
            logger.rewind(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        self._due = self._step % self.every == 0 or self._step == trainer.max_steps
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None, "batches come from it"
        validates = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
        if self._due and not validates:
            trainer._logger_connector.update_train_step_metrics()  # Lightning itself logs this step only after this hook
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.listening is None or self.monitor not in self.listening.names or self.listening.fresh:
            self._judge(trainer)
        if self._due:
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved != trainer.global_step:
            self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        for logger in _loggers(trainer):
            logger.flush()
        trainer.save_checkpoint(self.last_path, weights_only=False)
        self._saved, self._due = trainer.global_step, False

    def _judge(self, trainer: Trainer) -> None:
        """Save what is best; stop when nothing has been for too long."""
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise ConfigError(f"checkpoint.monitor={self.monitor} is not logged by the validation: choose one of {known}")
        value = trainer.strategy.broadcast(float(metrics[self.monitor]))  # one decision for all ranks
        better = self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        if math.isfinite(value) and better:
            self.best, self.best_step, self.waited = value, trainer.global_step, 0
            trainer.save_checkpoint(self.best_path, weights_only=True)
        elif math.isfinite(value):
            self.waited += 1
        if self.stopped:
            trainer.should_stop = self._due = True


def _loggers(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
