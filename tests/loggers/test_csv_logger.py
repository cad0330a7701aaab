import csv
from pathlib import Path

import pytest

from ttsadapt.errors import UserError
from ttsadapt.loggers.csv import CSVLogger


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def _log(logger: CSVLogger, steps: range, **values: float) -> None:
    for step in steps:
        logger.log_metrics({"loss": step / 3, "epoch": 0, **values}, step)
        logger.save()


def test_columns_may_come_later(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    _log(logger, range(2))
    logger.flush()
    logger.log_metrics({"valid/loss": 2.5}, 1)  # joins a row that is on disk
    _log(logger, range(2, 4), lr=0.5)
    logger.finalize("success")
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[:3] == ["step,epoch,loss,valid/loss,lr", "0,0,0,,", "1,0,0.333333333,2.5,"]
    assert [r["lr"] for r in _rows(tmp_path)] == ["", "", "0.5", "0.5"]


def test_rows_wait_in_memory_only_briefly(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    _log(logger, range(100))
    on_disk = _rows(tmp_path)
    assert 100 - CSVLogger.KEEP <= len(on_disk) < 100
    before = (tmp_path / "metrics.csv").stat().st_ino
    _log(logger, range(100, 200))
    assert (tmp_path / "metrics.csv").stat().st_ino == before  # appended, not written anew
    assert [r["step"] for r in _rows(tmp_path)] == [str(i) for i in range(len(_rows(tmp_path)))]


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = CSVLogger(tmp_path / "whole")
    _log(whole, range(10))
    whole.log_metrics({"valid": 1.0}, 9)
    _log(whole, range(10, 20))
    whole.flush()
    killed = CSVLogger(tmp_path / "killed")
    _log(killed, range(8))
    killed.flush()  # the checkpoint after step 8
    _log(killed, range(8, 13))
    killed.log_metrics({"valid": 7.0, "gone": 1.0}, 12)
    killed.flush()  # then it is killed
    resumed = CSVLogger(tmp_path / "killed")
    resumed.rewind(8)
    assert [r["step"] for r in _rows(tmp_path / "killed")] == [str(i) for i in range(9)]
    _log(resumed, range(8, 10))
    resumed.log_metrics({"valid": 1.0}, 9)
    _log(resumed, range(10, 20))
    resumed.flush()
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_a_run_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    killed = CSVLogger(tmp_path)
    _log(killed, range(5))
    killed.flush()
    again = CSVLogger(tmp_path)
    again.log_metrics({"valid": 3.0}, 0)  # a validation before training, of this process
    again.rewind(0)
    assert [(r["step"], r["valid"]) for r in _rows(tmp_path)] == [("0", "3")]


def test_opening_without_training_keeps_everything(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    _log(logger, range(5))
    logger.flush()
    before = (tmp_path / "metrics.csv").read_bytes()
    CSVLogger(tmp_path).flush()
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_torn_last_line_is_dropped(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    _log(logger, range(5))
    logger.flush()
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-4])
    logger = CSVLogger(tmp_path)
    _log(logger, range(4, 6))
    logger.flush()
    assert [(r["step"], r["loss"]) for r in _rows(tmp_path)][-2:] == [("4", "1.33333333"), ("5", "1.66666667")]


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    _log(logger, range(2))
    logger.flush()
    logger.path.unlink()
    logger.path.symlink_to("/dev/full")
    logger.log_metrics({"loss": 1.0}, 2)
    with pytest.raises(UserError, match="disk full while writing"):
        logger.flush()


@pytest.mark.parametrize(("text", "message"), [("a,b\n1,2\n", "was not written by a run"), ("step,epoch\nx,0\n", "line 2: step 'x'")])
def test_foreign_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        CSVLogger(tmp_path)
