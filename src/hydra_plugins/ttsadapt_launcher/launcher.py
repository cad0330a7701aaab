"""Hydra launcher `isolated`: every job of a sweep is a fresh process, so that DDP works and a crash costs one job."""

# No `from __future__ import annotations` in modules that Hydra scans: it breaks their dataclasses.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ttsadapt.errors import ConfigError, UserError


@dataclass
class IsolatedConf:
    _target_: str = "hydra_plugins.ttsadapt_launcher.launcher.IsolatedLauncher"
    n_jobs: Optional[int] = None  # noqa: UP045 -- OmegaConf reads it; None: as many as the machine bears


ConfigStore.instance().store(group="hydra/launcher", name="isolated", node=IsolatedConf, provider="ttsadapt_launcher")


class IsolatedLauncher(Launcher):
    """Runs that are finished are skipped before a process is started; a failed job stops no other; the study's report comes last."""

    def __init__(self, n_jobs: int | None = None) -> None:
        if n_jobs is not None and n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: at least 1")
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hydra_plugins.ttsadapt_launcher._sweep import Sweep

        # Every job is composed and checked before the first one starts: a wrong override costs nothing.
        returns = [self._compose(i, list(o)) for i, o in enumerate(job_overrides, initial_job_idx)]
        failed = Sweep(self.config, returns, self.n_jobs).run()
        if failed and self.config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            raise UserError(failed)
        return returns

    def _compose(self, number: int, overrides: list[str]) -> JobReturn:
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg.hydra):
            cfg.hydra.job.num, cfg.hydra.job.id = number, f"job_{number}"
        HydraConfig.instance().set_config(cfg)  # for ${hydra:...} in the folder's name
        folder = Path(OmegaConf.select(cfg, "hydra.sweep.dir"), OmegaConf.select(cfg, "hydra.sweep.subdir")).absolute()
        kept = filter_overrides(overrides)
        return JobReturn(overrides=kept, cfg=cfg, hydra_cfg=cfg, working_dir=str(folder), status=JobStatus.UNKNOWN)
