"""One job of a sweep: its name, its process group, how far it is."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from ttsadapt.config.app import LAUNCHER
from ttsadapt.config.plain import quoted

State = Literal["waiting", "running", "finished", "skipped", "repeated", "failed"]

# What a distributed run may have left in the environment, and what this process set for itself.
_DROPPED = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "HYDRA_MAIN_MODULE")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SWEEP_ONLY = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep.", "hydra.mode", "hydra.run.dir")
GRACE = 10.0
"""seconds between SIGTERM and SIGKILL"""


@dataclass(eq=False)
class Job:
    ret: JobReturn
    name: str
    state: State = "waiting"
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def cfg(self) -> DictConfig:
        assert isinstance(self.ret.cfg, DictConfig)
        return self.ret.cfg

    @property
    def folder(self) -> Path:
        assert self.ret.working_dir is not None
        return Path(self.ret.working_dir)

    @property
    def log(self) -> Path:
        return self.folder / "stdout.log"

    def start(self, threads: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started, self.state = time.monotonic(), "running"
        with self.log.open("ab") as log:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(self.command(), env=environment(threads), start_new_session=True, **streams)

    def command(self) -> list[str]:
        """This program again, as a single run with the job's overrides."""
        hydra, spec = self.cfg.hydra, getattr(sys.modules["__main__"], "__spec__", None)
        command = [sys.executable, *(["-m", spec.name] if spec else [os.path.abspath(sys.argv[0])])]
        for source in hydra.runtime.config_sources:
            flag = {"main": "--config-path", "command-line": "--config-dir"}.get(source.provider)
            if flag and source.schema == "file":
                command += [flag, source.path]
        own = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(_SWEEP_ONLY)]
        folder = f"hydra.run.dir={quoted(str(self.folder))}"
        return [*command, "--config-name", hydra.job.config_name, *own, *(self.ret.overrides or ()), "hydra.mode=RUN", folder]

    def ended(self) -> bool:
        """Collects the process when it is over, with whatever it left behind: other ranks, loader workers."""
        assert self.process is not None
        if self.process.poll() is None:
            return False
        kill(self.process.pid, signal.SIGKILL)
        self.seconds = time.monotonic() - self.started
        self.state = "finished" if self.process.returncode == 0 else "failed"
        return True

    def last_words(self) -> str:
        """The last line of its output that says anything."""
        with suppress(OSError):
            lines = [line.strip() for line in tail(self.log).splitlines() if line.strip()]
            return lines[-1] if lines else "no output"
        return "no output"

    def progress(self) -> str:
        """`train 120/400`, from progress.json, else from the last row of metrics.csv; empty before either is there."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if (file := self.folder / "progress.json").is_file():
                now = json.loads(file.read_text())
                counted = f" {now['step']}/{now['total']}" if now.get("total") else ""
                return f"{now.get('stage', '')}{counted}".strip()
            rows = list(csv.reader(tail(self.folder / "metrics.csv").splitlines()))
            return f"{int(rows[-1][0]) + 1}/{self.cfg.trainer.max_steps}"
        return ""


def stop(jobs: list[Job]) -> None:
    """SIGTERM to every process group, SIGKILL to those that are still there after a grace."""
    processes = [job.process for job in jobs if job.process is not None and job.process.poll() is None]
    for process in processes:
        kill(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        kill(process.pid, signal.SIGKILL)
        process.wait()


def kill(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def environment(threads: int) -> dict[str, str]:
    """A clean start: no rank of an earlier distributed run, an equal share of the cores unless the user chose one."""
    kept = {k: v for k, v in os.environ.items() if k not in _DROPPED}
    return dict.fromkeys(_THREADS, str(threads)) | kept | {LAUNCHER: str(os.getpid())}


def tail(file: Path, size: int = 4096) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - size))
        return stream.read().decode(errors="replace")
