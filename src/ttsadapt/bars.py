"""Progress bars: drawn on a terminal; in a log a line now and then of what takes long, and no control characters."""

import sys
import time
from typing import Any

from tqdm import tqdm

QUIET = 10.0
"""seconds until a bar is a line in a log, and between two of them"""


class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """tqdm's. Where stderr is no terminal it says nothing before QUIET seconds, and nothing within another bar."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.log, self.said = not (settings.get("file") or sys.stderr).isatty(), time.monotonic()
        quiet = {"delay": QUIET, "mininterval": QUIET, "leave": False} if self.log else {}
        super().__init__(*arguments, **settings | quiet)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        if not self.log:
            return super().display(msg, pos)
        if msg is None and not self.pos and time.monotonic() - self.said >= QUIET:
            self.said = time.monotonic()
            print(str(self), file=self.fp, flush=True)
        return None

    def clear(self, nolock: bool = False) -> None:
        if not self.log:
            super().clear(nolock)


def close_all() -> None:
    """Every bar that is open, a library's too, is taken off the screen."""
    for bar in list(tqdm._instances):
        bar.close()
