"""`metrics.csv`: one row a logged step, whole after any crash, the same after a resume as without one."""

import csv
import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ttsadapt.errors import UserError
from ttsadapt.files import replacing
from ttsadapt.loggers.base import RunLogger

Row = dict[str, str]


class CSVLogger(RunLogger, Logger):
    """Columns `step,epoch,<names in order of appearance>`; what is logged twice for a step is merged into one row.

    Full rows are appended. A new column, or a value for a row that is already on disk, rewrites the file atomically.
    """

    KEEP = 16
    """rows held in memory before they are written; `flush` writes them at once (each checkpoint calls it)"""

    def __init__(self, folder: Path | str, run_id: str = "", study: str = "", config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.folder, self.run_id = Path(folder), run_id
        self.path = self.folder / "metrics.csv"
        self.columns: list[str] = ["step", "epoch"]
        self._rows: dict[int, Row] = {}
        self._logged: set[int] = set()  # steps of this process, which `rewind` keeps
        self._pending: list[int] = []
        self._rewrite = False
        self._read()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.run_id

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder holds config.yaml already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = max(self._rows, default=-1) + 1 if step is None else int(step)
        values = {k: _text(v) for k, v in metrics.items() if k != "step"}
        for column in [k for k in values if k not in self.columns]:
            self.columns.append(column)
            self._rewrite = True
        if step not in self._rows:
            self._rows[step] = {}
            self._pending.append(step)
        elif step not in self._pending and values.items() - self._rows[step].items():
            self._rewrite = True
        self._rows[step] |= values
        self._logged.add(step)

    @rank_zero_only
    def save(self) -> None:
        """Called by Lightning after every row."""
        if len(self._pending) > self.KEEP:
            self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def finish(self, failed: bool = False) -> None:
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        if self._rewrite or not self.path.exists():
            with replacing(self.path) as temporary:
                temporary.write_text(self._format(sorted(self._rows), header=True), encoding="utf-8")
        elif self._pending:
            self._append(self._format(self._pending, header=False))
        self._pending, self._rewrite = [], False

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop what an earlier process logged beyond `step`: those steps are about to be taken again."""
        stale = [s for s in self._rows if s not in self._logged and (s > step or step == 0)]
        if not stale:
            return
        for s in stale:
            del self._rows[s]
        # Columns that only the dropped rows had would otherwise stay, and the order would differ from an unbroken run's.
        used = {name for row in self._rows.values() for name in row}
        self.columns = ["step", "epoch", *(c for c in self.columns[2:] if c in used)]
        self._rewrite = True
        self.flush()

    def _append(self, text: str) -> None:
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"disk full while writing {self.path}: free some space and start again; the run resumes") from error
            raise

    def _format(self, steps: list[int], header: bool) -> str:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({"step": step} | self._rows[step] for step in steps)
        return stream.getvalue()

    def _read(self) -> None:
        """Rows of an earlier process. A last line without its end is what a kill left of a write: it is dropped."""
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        self._rewrite = whole != text
        reader = csv.DictReader(io.StringIO(whole))
        if not reader.fieldnames or reader.fieldnames[0] != "step":
            raise UserError(f"{self.path} was not written by a run (its first column is not 'step'): move it away and start again")
        self.columns = ["step", "epoch", *(c for c in reader.fieldnames if c not in ("step", "epoch"))]
        for row in reader:
            try:
                step = int(row["step"])
            except ValueError as error:
                raise UserError(f"{self.path}, line {reader.line_num}: step {row['step']!r} is not a number: delete the line") from error
            self._rows[step] = {k: v for k, v in row.items() if k and k != "step" and v}


def _text(value: Any) -> str:
    """Nine digits tell any two float32 values apart; whole numbers stay whole."""
    value = value.item() if hasattr(value, "item") else value
    return format(value, ".9g") if isinstance(value, float) else str(value)
