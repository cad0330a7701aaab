import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from callbacks import training
from callbacks.training import train
from ttsadapt.callbacks import throughput
from ttsadapt.callbacks.progress import Progress
from ttsadapt.callbacks.throughput import peak_memory


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_without_control_characters(tmp_path: Path) -> None:
    log = io.StringIO()
    train(tmp_path, steps=4, callbacks=[Progress(every_seconds=0, stream=log)])
    lines = log.getvalue().splitlines()
    assert [re.match(r"train: step (\d)/4", line)[1] for line in lines] == list("1234")
    assert all(re.search(r"loss=\S+ task=\S+ kd=\S+ frames/s=\d", line) for line in lines) and "\r" not in log.getvalue()


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(tmp_path: Path) -> None:
    log = io.StringIO()
    train(tmp_path, steps=4, callbacks=[Progress(stream=log)])
    assert len(log.getvalue().splitlines()) == 1 and "step 4/4" in log.getvalue()


def test_a_terminal_gets_one_bar(tmp_path: Path) -> None:
    screen = Terminal()
    train(tmp_path, steps=4, callbacks=[Progress(every_seconds=0, stream=screen)])
    assert "4/4" in screen.getvalue() and "loss=" in screen.getvalue() and screen.getvalue().count("\n") == 1


def test_speed_counts_each_step_once_and_not_the_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of a second a step, whose totals (40 frames, 12 tokens) are those of the whole step."""
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    class Timed(training.Module):
        def training_step(self, batch: dict, index: int) -> dict:
            now[0] += 1.0
            return super().training_step(batch, index)

        def validation_step(self, batch: dict, index: int) -> None:
            now[0] += 100.0
            super().validation_step(batch, index)

    train(tmp_path, steps=3, module=Timed)
    header, *rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    speeds = [(row[header.index("frames_per_second")], row[header.index("tokens_per_second")]) for row in rows]
    assert speeds == [("20", "6")] * 3


def test_peak_memory_is_this_process() -> None:
    assert 0.05 < peak_memory()["resident_gib"] < 64
    much = torch.ones(2**28)  # 1 GiB that a child must not count as its own
    code = "from ttsadapt.callbacks.throughput import peak_memory; print(peak_memory()['resident_gib'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 0.9 < peak_memory()["resident_gib"]
    del much
