"""Lightning's Trainer with what makes a run safe and resumable."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from ttsadapt.callbacks.checkpoint import Checkpoints, SafeCheckpointIO
from ttsadapt.callbacks.economy import Compiled, GradientCheckpointing
from ttsadapt.callbacks.guard import FiniteLoss
from ttsadapt.callbacks.progress import Progress
from ttsadapt.callbacks.state import RandomState
from ttsadapt.callbacks.throughput import Throughput
from ttsadapt.errors import ConfigError
from ttsadapt.loggers.base import RunLogger


def build_trainer(
    cfg: DictConfig, folder: Path, loggers: list[RunLogger], callbacks: list[L.Callback], checkpoints: Checkpoints
) -> L.Trainer:
    wanted = cfg.trainer
    quiet()
    switches: list[L.Callback] = [*[GradientCheckpointing()] * wanted.gradient_checkpointing, *[Compiled()] * wanted.compile]
    # The guard comes before the checkpoints: a loss that is not finite is never saved.
    safety = [FiniteLoss(), RandomState(), Throughput(), checkpoints]
    return L.Trainer(
        max_steps=wanted.max_steps or -1, max_epochs=wanted.max_epochs or -1, accelerator=wanted.accelerator, devices=wanted.devices,
        strategy=wanted.strategy, precision=wanted.precision, gradient_clip_val=wanted.gradient_clip,
        accumulate_grad_batches=wanted.accumulate, val_check_interval=wanted.val_every * wanted.accumulate, check_val_every_n_epoch=None,
        log_every_n_steps=wanted.log_every, num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=str(folder),
        logger=loggers,  # type: ignore[arg-type]  # each is one of Lightning's, too
        callbacks=[*callbacks, *switches, *safety, *([Progress()] if wanted.progress else [])], plugins=[SafeCheckpointIO()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=True,
    )  # fmt: skip


def device_of(accelerator: str, devices: Any = 1) -> torch.device:
    """Where Lightning would train with these words of a config, on the first of several devices. ConfigError when it is not here."""
    from lightning.fabric import Fabric

    several = isinstance(devices, Sequence) and not isinstance(devices, str)
    try:
        return Fabric(accelerator=accelerator, devices=list(devices)[:1] if several else 1).device
    except (MisconfigurationException, RuntimeError, ValueError, ImportError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"accelerator={accelerator} is not on this machine ({line}): give auto or cpu") from error


def refuse_hardware(cfg: DictConfig) -> None:
    """ConfigError when Lightning cannot train here as `cfg.trainer` says; nothing is started or moved anywhere."""
    quiet()
    every: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    asked = {name: every[name] for name in ("accelerator", "devices", "strategy", "precision")}
    try:
        L.Trainer(**asked, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    except (MisconfigurationException, RuntimeError, ValueError, ImportError) as error:
        line = " ".join(str(error).split()).rstrip(".!")
        told = " ".join(f"trainer.{name}={value}" for name, value in asked.items())
        raise ConfigError(f"{told} cannot train on this machine ({line}): give auto, or what is here") from error


def quiet() -> None:
    """What Lightning says to everybody, at every start, twice: devices, tips. Its warnings about a run stay."""
    ranks = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch.utilities.seed")
    for name in (*ranks, "lightning.pytorch.trainer.connectors.signal_connector"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Frozen parts are in eval mode on purpose.
    warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


def build_loggers(cfg: DictConfig, folder: Path, run_id: str, name: str, base_hash: str) -> list[RunLogger]:
    """Loggers of `logger=[csv,wandb]`; each gets the run's identity."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    given = {"folder": folder, "run_id": run_id, "study": cfg.study, "config": config | {"name": name, "base_hash": base_hash}}
    # `instantiate` has an argument `config` of its own, so the given ones are added after it.
    return [instantiate(node, _partial_=True, _convert_="all")(**given) for node in cfg.logger.values()]
