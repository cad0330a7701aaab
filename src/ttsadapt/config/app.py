"""What every command has in common: compose, check, then run the job; a mistake of the user costs one line and one second."""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ttsadapt.errors import UserError
from ttsadapt.files import write_json
from ttsadapt.processes import when_orphaned
from ttsadapt.stopping import GOES_ON, Stopped, exit_code, stop_on_signals

Job = Callable[[DictConfig], Any]

LAUNCHER = "TTSADAPT_LAUNCHER"
"""set for the jobs that a process starts in groups of their own: its process id"""
_FULL = "HYDRA_FULL_ERROR"


def command(name: str, job: Job) -> Callable[[], None]:
    """The `main` of a command: Hydra composes `name`.yaml, the config is checked, then `job` runs (and imports what it needs)."""

    def main() -> None:
        die_with_the_launcher()
        stop_on_signals()
        quiet_output()
        asked_for_all = os.environ.get(_FULL) == "1"
        try:
            refuse_unknown_flags(sys.argv[1:])
            if {"-h", "--help"} & set(sys.argv[1:]):
                return _help(name)
            sys.argv[1:] = _plain(sys.argv[1:], name)  # where Hydra reads them, and ranks of a distributed run
            with _environment(_FULL, "1"):  # Hydra then raises instead of printing: what is printed is decided here
                _compose_and_run(name, job, "1" if asked_for_all else None)
        except (Stopped, KeyboardInterrupt) as error:
            sys.exit(say(GOES_ON, exit_code(error)))
        except Exception as error:
            sys.exit(_report(error, asked_for_all))

    return main


def refuse_unknown_flags(arguments: list[str]) -> None:
    """UserError for an option that Hydra does not have: its own message is the usage of a program that nobody typed."""
    from hydra._internal.utils import get_args_parser

    from ttsadapt.config.nearest import hint

    known = {flag for action in get_args_parser()._actions for flag in action.option_strings}
    for name in (a.partition("=")[0] for a in arguments if a.startswith("-") and not a.lstrip("-")[:1].isdigit()):
        short = not name.startswith("--") and any(name.startswith(k) for k in known if not k.startswith("--"))
        if not short and not any(k.startswith(name) for k in known):
            raise UserError(f"there is no option {name}{hint(name, known)}")


def _help(name: str) -> None:
    from ttsadapt.config.helping import told

    print(told(name, sys.argv[1:]))


def _plain(arguments: list[str], name: str) -> list[str]:
    from ttsadapt.config.plain import plain

    return plain(arguments, name)


def quiet_output() -> None:
    """In a log a library's progress bar is drawn every ten seconds, not at every step; speechbrain keeps its settings to itself."""
    logging.getLogger("speechbrain.utils.quirks").setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")


def _compose_and_run(name: str, job: Job, full: str | None) -> None:
    import hydra

    from ttsadapt.config import paths
    from ttsadapt.config.resolvers import register
    from ttsadapt.config.schema import check
    from ttsadapt.config.writing import unwritable

    def task(cfg: DictConfig) -> Any:
        with _environment(_FULL, full):
            try:
                check(cfg, name)
                return _kept(job(cfg))
            except Exception as error:
                line = _user_line(error) or unwritable(error, cfg)
                _forget_empty(Path(cfg.paths.outputs))
                if line is not None and not full and not _sweeping():
                    raise SystemExit(say(line, 1)) from error  # past Hydra, which would add a line of its own
                error.__ttsadapt_job__ = True  # type: ignore[attr-defined]
                raise

    task.__module__ = f"ttsadapt.{name}"  # Hydra names the job after it
    register()
    hydra.main(version_base="1.3", config_path=str(paths.conf()), config_name=name)(task)()


def _kept(value: Any) -> Any:
    """The launcher's sweeper reads the value of a job (what a search minimises) from its folder."""
    from hydra.core.hydra_config import HydraConfig

    if value is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        write_json(Path(HydraConfig.get().runtime.output_dir) / "result.json", value)
    return value


def _forget_empty(outputs: Path) -> None:
    """What was refused before it wrote anything leaves no folder: Hydra had made one."""
    from hydra.core.hydra_config import HydraConfig

    folder, above = Path(HydraConfig.get().runtime.output_dir).resolve(), outputs.resolve()
    with suppress(OSError):  # not empty
        while above in folder.parents:
            folder.rmdir()
            folder = folder.parent


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _report(error: Exception, everything: bool) -> int:
    from ttsadapt.config.errors import one_line
    from ttsadapt.config.writing import no_folder

    in_job = getattr(error, "__ttsadapt_job__", False)
    line = None if everything else _user_line(error) if in_job else one_line(error) or no_folder(error)
    if line is not None:
        return say(line, 1)
    if isinstance(error, BrokenPipeError) and not in_job:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if in_job and not everything:
        _trim(error)
    _clear()
    traceback.print_exception(error)
    return 1


def _user_line(error: Exception) -> str | None:
    """A UserError that a library (Hydra's instantiate, Lightning) has wrapped."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return " ".join(str(cause).split()) if cause is not None else None


def say(line: str, code: int) -> int:
    """Prints why a command ends with `code`, and gives it back."""
    _clear()
    if code == 1 or not _other_rank():  # all ranks of a run are stopped, one says so
        print(f"error: {line}" if code == 1 else line, file=sys.stderr, flush=True)
    return code


def _other_rank() -> bool:
    return "WORLD_SIZE" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def _clear() -> None:
    """What is said begins on a line of its own: no bar stands before it."""
    if "tqdm" in sys.modules:
        from ttsadapt.bars import close_all

        close_all()


def _trim(error: Exception) -> None:
    """Drop the frames above the job: they are Hydra's."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_name != "task":
        frames = frames.tb_next
    if frames is not None and frames.tb_next is not None:
        error.__traceback__ = frames.tb_next


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def die_with_the_launcher() -> None:
    """A job whose launcher was killed outright would go on unseen, and meet its own successor in the same run folder."""
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is None or os.getppid() != int(launcher):
        return

    def end() -> None:
        os.killpg(0, signal.SIGTERM)  # the launcher gave the job a group of its own: other ranks and loader workers too
        time.sleep(10)
        os.killpg(0, signal.SIGKILL)

    when_orphaned(int(launcher), end)
