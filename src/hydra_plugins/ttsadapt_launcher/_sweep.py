"""Runs the jobs of a sweep side by side, and says what happens while it does."""

import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from hydra_plugins.ttsadapt_launcher._jobs import Job, environment, stop
from ttsadapt.config.identity import made_by_other_code, status
from ttsadapt.config.plain import quoted
from ttsadapt.errors import UserError
from ttsadapt.files import read_json
from ttsadapt.machine import cores

_POLL, _QUIET = 0.1, 60.0  # seconds: between looks at the processes; between progress lines where there is no terminal


class Sweep:
    def __init__(self, config: DictConfig, returns: list[JobReturn], n_jobs: int | None) -> None:
        self.config, self.train = config, config.hydra.job.config_name == "train"
        self.jobs = [Job(ret, name) for ret, name in zip(returns, names(returns))]
        self.width = n_jobs or default_width(config)
        # A share of the machine that does not depend on how many jobs are left: a resumed run adds up in the same order.
        self.threads = max(1, cores() // self.width)
        self.screen = Screen()
        self.began = time.monotonic()

    def run(self) -> str | None:
        """Until every job is over; what failed, in one line, or None."""
        self._skip()
        try:
            self._work()
        except BaseException:
            stop(self.jobs)
            self.screen.line(f"{self._count('finished') + self._count('skipped')} of {len(self.jobs)} runs are finished")
            raise
        for job in self.jobs:
            self._hand_back(job)
        return self._conclude()

    def _skip(self) -> None:
        """Runs that are finished, and jobs that are the same run as an earlier one of this sweep."""
        seen: set[Path] = set()
        for job in self.jobs:
            if job.folder in seen:
                job.state = "repeated"
            elif self.train and self.config.resume and status(job.folder) == "finished":
                job.state = "skipped"
            seen.add(job.folder)
        other = [job.name for job in self.jobs if job.state == "skipped" and made_by_other_code(job.folder)]
        if self._count("skipped"):
            self.screen.line(f"{self._count('skipped')} of {len(self.jobs)} runs are finished already")
        if other:
            self.screen.line(f"warning: {', '.join(other)} made by other code than this, kept all the same; delete the folder to run again")

    def _work(self) -> None:
        waiting = [job for job in self.jobs if job.state == "waiting"]
        running: list[Job] = []
        while waiting or running:
            while waiting and len(running) < self.width:
                running.append(job := waiting.pop(0))
                job.start(self.threads)
                self._tell(job, f"started  {shown(job.folder)}")
            time.sleep(_POLL)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                failed = f"FAILED after {duration(job.seconds)}: {job.last_words()}  ({shown(job.log)})"
                self._tell(job, f"finished in {duration(job.seconds)}" if job.state == "finished" else failed)
            self.screen.status(self._status(running))
        self.screen.status("")

    def _status(self, running: list[Job]) -> str:
        over = len(self.jobs) - len(running) - self._count("waiting")
        parts = [f"{job.name} {job.progress()}".strip() for job in running]
        return f"{over}/{len(self.jobs)} done, {duration(time.monotonic() - self.began)} | {' | '.join(parts)}" if running else ""

    def _tell(self, job: Job, text: str) -> None:
        self.screen.line(f"[{self.jobs.index(job) + 1}/{len(self.jobs)}] {job.name}  {text}")

    def _hand_back(self, job: Job) -> None:
        """What Hydra's sweeper gets: the job's return value, or an error."""
        twin = next(other for other in self.jobs if other.folder == job.folder)
        if twin.state == "failed":
            job.ret.status, job.ret.return_value = JobStatus.FAILED, UserError(f"{job.name} failed: see {twin.log}")
            return
        job.ret.status, job.ret.return_value = JobStatus.COMPLETED, None
        with suppress(OSError):
            job.ret.return_value = read_json(job.folder / "result.json")

    def _conclude(self) -> str | None:
        failed = [job for job in self.jobs if job.state == "failed"]
        counts = ", ".join(f"{n} {state}" for state in ("finished", "skipped", "repeated", "failed") if (n := self._count(state)))
        self.screen.line(f"{len(self.jobs)} runs in {duration(time.monotonic() - self.began)}: {counts}")
        for job in failed:
            self.screen.line(f"  failed: {job.name}  {shown(job.log)}")
        wrong = [f"{len(failed)} of {len(self.jobs)} runs failed: {', '.join(job.name for job in failed)}"] if failed else []
        if self.train and self.config.report:
            wrong += [f"the report of {study} failed" for study in self._studies() if not self._report(study)]
        return "; ".join(wrong) or None

    def _studies(self) -> list[str]:
        """Those of this sweep that have something to report."""
        return sorted({job.cfg.study for job in self.jobs if job.state in ("finished", "skipped")})

    def _report(self, study: str) -> bool:
        where = f"paths.outputs={quoted(str(self.config.paths.outputs))}"
        command = [sys.executable, "-m", "ttsadapt.report", f"study={quoted(study)}", where]
        return subprocess.run(command, env=environment(cores())).returncode == 0

    def _count(self, state: str) -> int:
        return sum(job.state == state for job in self.jobs)


class Screen:
    """Lines that stay, and one at the bottom that changes (now and then a line where there is no terminal)."""

    def __init__(self) -> None:
        self.terminal, self.bottom, self.quiet_since = sys.stdout.isatty(), "", time.monotonic()

    def line(self, text: str) -> None:
        print(("\r\x1b[2K" if self.bottom else "") + text, flush=True)
        self.bottom, self.quiet_since = "", time.monotonic()

    def status(self, text: str) -> None:
        if not self.terminal:
            if text and time.monotonic() - self.quiet_since > _QUIET:
                self.line(text)
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        if text != self.bottom:
            print(f"\r\x1b[2K{text}", end="", flush=True)
            self.bottom = text


def names(returns: list[JobReturn]) -> list[str]:
    """What tells the jobs apart: `lora+ewc`, `lora seed=1`; `base` where nothing is adapted."""
    parser = OverridesParser.create()
    parsed = [parser.parse_overrides(list(ret.overrides or ())) for ret in returns]
    asked = [{o.get_key_element(): o.get_value_element_as_str() for o in overrides} for overrides in parsed]
    keys = [k for k in dict.fromkeys(k for a in asked for k in a) if len({a.get(k) for a in asked}) > 1]
    return [_name(ret.cfg, {k: a[k] for k in keys if k in a}) for ret, a in zip(returns, asked)]


def _name(cfg: Any, differing: dict[str, str]) -> str:
    strategies = "+".join(sorted(cfg.get("strategy", {}))) or "base"
    others = [f"{key.rpartition('.')[2]}={value}" for key, value in differing.items() if key != "strategy"]
    shown_first = [strategies] if "strategy" in differing or not others else []
    return re.sub(r"\s+", " ", " ".join([*shown_first, *others]))


def default_width(config: DictConfig) -> int:
    """Two jobs share a machine without an accelerator; an accelerator has one at a time."""
    trainer = config.get("trainer", {})
    accelerated = sys.platform == "darwin" or Path("/dev/kfd").exists() or any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if accelerated and trainer.get("accelerator") != "cpu" else min(2, cores())


def duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def shown(path: Path) -> str:
    """Relative to the current folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
