"""TensorBoard: event files below the run folder, with audio, mel pictures and the final table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ttsadapt.loggers.base import RunLogger, mel_figure


class TensorBoardLogger(RunLogger, LightningTensorBoardLogger):
    """`tensorboard/events.out.*`; a resumed run writes a further file that hides the steps which are taken again."""

    hears: ClassVar[bool] = True

    def __init__(
        self, folder: Path | str, run_id: str = "", study: str = "", config: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(save_dir=str(folder), name="", version="tensorboard", **options)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None, *args: Any, **kwargs: Any) -> None:
        """The run folder holds config.yaml already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._repeats(metrics, step):
            super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def rewind(self, step: int) -> None:
        if step and self._experiment is None:
            self._kwargs["purge_step"] = step + 1  # what validation showed after `step` stays

    @rank_zero_only
    def save(self) -> None:
        """Called by Lightning after every row: the writer flushes by itself, and there are no hyperparameters to save."""

    @rank_zero_only
    def flush(self) -> None:
        if self._experiment is not None:
            self._experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Training is over, the run is not: `finish` closes."""
        self.flush()

    @rank_zero_only
    def finish(self, failed: bool = False) -> None:
        if self._experiment is not None:
            self._experiment.close()
            self._experiment = None

    @rank_zero_only
    def log_audio(self, name: str, audio: Tensor, rate: int, step: int, caption: str = "") -> None:
        self.experiment.add_audio(name, audio.detach().float().cpu()[None], step, sample_rate=rate)
        if caption:
            self.experiment.add_text(f"{name}/text", caption, step)

    @rank_zero_only
    def log_mel(self, name: str, mel: Tensor, step: int) -> None:
        self.experiment.add_figure(name, mel_figure(mel), step)

    @rank_zero_only
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [list(map(str, columns)), ["---"] * len(columns), *(list(map(str, row)) for row in rows)]
        self.experiment.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines))
