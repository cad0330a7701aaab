"""Ctrl-C and SIGTERM: both end a command in the same way, and neither looks like a failure or, worse, like success."""

import os
import signal
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from types import FrameType
from typing import Any

from ttsadapt.errors import UserError

GOES_ON = "stopped: the same command goes on from here"
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""exit codes"""
_ONE = 2.0  # seconds in which a signal is the same one again: `timeout` sends SIGTERM to its child and to the whole group
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL


class Stopped(BaseException):
    """Raised where the signal `number` met the main thread. Not a KeyboardInterrupt, which Lightning turns into exit code 1."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        """the exit code that a shell and SLURM know it by"""


def exit_code(error: BaseException) -> int:
    """130 or 143 for what has stopped a command, 1 for anything else."""
    return error.code if isinstance(error, Stopped) else 130 if isinstance(error, KeyboardInterrupt) else 1


def stop_on_signals() -> None:
    """From here on SIGINT and SIGTERM raise Stopped in this process's main thread; those that are forked from it die as any other."""
    own, last = os.getpid(), float("-inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again, last = time.monotonic() - last < _ONE, time.monotonic()
        if not again:
            raise Stopped(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a background job of a shell is deaf to Ctrl-C, and stays so
                signal.signal(number, stop)


def last_words(error: BaseException) -> dict[str, Any]:
    """What summary.json says of a run that `error` has ended: "stopped" by either signal in the same words, else "failed" and why."""
    if exit_code(error) != 1:
        return {"status": "stopped", "error": GOES_ON}
    line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {"status": "failed", "error": line, "traceback": "".join(traceback.format_exception(error))}


def call(command: list[str], environment: dict[str, str]) -> int:
    """The exit code of a command in a process group of its own, which ends with this process's wait for it."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_GRACE)
