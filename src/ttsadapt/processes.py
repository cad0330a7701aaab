"""Processes that end with the one that started them, however that one ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

_LOOK = 0.5
"""seconds between looks at the parent"""


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` fresh processes. What has not begun is dropped when the block is left by an error; none outlives this process.

    Spawned, not forked: this process may hold threads of torch by now.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_dependent, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def when_orphaned(parent: int, then: Callable[[], Any]) -> None:
    """Call `then` in a thread once the process `parent` is no longer this one's parent: a killed one can tell nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        then()

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _dependent(parent: int) -> None:
    """Of a worker: Ctrl-C goes to all processes of a terminal, and it is the parent that ends the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    when_orphaned(parent, lambda: os._exit(1))  # the main thread may wait in a lock of the pool for ever
