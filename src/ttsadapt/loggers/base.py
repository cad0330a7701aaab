"""What every logger of a run understands beyond Lightning's `log_metrics`; a logger ignores what it has no place for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Used:
    """Something that a run started from, named by its content and never uploaded: the base model, a corpus."""

    name: str
    type: str
    digest: str


class RunLogger:
    """Mixed into a Lightning `Logger`. All of it is called on rank 0 only (the implementations see to that)."""

    hears: ClassVar[bool] = False
    """whether audio and pictures have a place in it: nothing is synthesised for loggers that ignore them"""

    _last: tuple[int | None, dict[str, float]] | None = None

    def rewind(self, step: int) -> None:
        """Training goes on after `step` optimiser steps (0: from the start): forget what was logged beyond it."""

    def flush(self) -> None:
        """Everything logged so far is on disk when this returns."""

    def finish(self, failed: bool = False) -> None:
        """The run is over: close files and connections. May be called twice."""

    def log_audio(self, name: str, audio: Tensor, rate: int, step: int, caption: str = "") -> None:
        """`audio`: (samples,) in [-1, 1]."""

    def log_mel(self, name: str, mel: Tensor, step: int) -> None:
        """`mel`: (frames, bins), log amplitude."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def log_artifact(self, name: str, type: str, path: Path, uses: Sequence[Used] = ()) -> None:
        """`path`: a file or a folder that the run made out of what it `uses`."""

    def _repeats(self, metrics: Mapping[str, float], step: int | None) -> bool:
        """Whether this is the call before, once more: a step that is checkpointed is logged early, then again by Lightning."""
        now = (step, dict(metrics))
        repeats, self._last = self._last == now, now
        return repeats


def mel_figure(mel: Tensor) -> "Figure":
    """(frames, bins) -> a picture with time from left to right and low bins at the bottom."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(mel.detach().float().cpu().numpy().T, origin="lower", aspect="auto", interpolation="nearest")
    axes.set(xlabel="frame", ylabel="mel bin")
    figure.colorbar(image, ax=axes, label="log amplitude")
    return figure
