"""Reading and writing checkpoints: whole or not at all, and one line when it cannot be."""

import os
import pickle
import resource
from pathlib import Path

import pytest
import torch

from callbacks.training import train
from ttsadapt.callbacks.checkpoint import Checkpoints, SafeCheckpointIO, last_checkpoint
from ttsadapt.errors import CheckpointError, ConfigError, UserError

GOOD = {"state_dict": {"w": torch.arange(50_000.0)}, "loops": {}, "global_step": 3}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(GOOD, path)
    return path


def _one_line(error: pytest.ExceptionInfo, path: Path) -> None:
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_round_trip(saved: Path) -> None:
    assert torch.equal(SafeCheckpointIO().load_checkpoint(saved)["state_dict"]["w"], GOOD["state_dict"]["w"])
    assert os.listdir(saved.parent) == ["last.ckpt"]


def test_full_disk_keeps_the_file_before(saved: Path) -> None:
    before = saved.read_bytes()
    saved.with_name(f".last.ckpt.{os.getpid()}.tmp").symlink_to("/dev/full")  # every write there fails for want of space
    with pytest.raises(UserError, match="disk full") as error:
        SafeCheckpointIO().save_checkpoint({**GOOD, "global_step": 4}, saved)
    _one_line(error, saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["last.ckpt"]


def test_file_too_large_keeps_the_file_before(saved: Path) -> None:
    before, (soft, hard) = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match="File too large") as error:
            SafeCheckpointIO().save_checkpoint({**GOOD, "global_step": 4}, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _one_line(error, saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["last.ckpt"]


class Command:
    def __reduce__(self):
        return os.mkdir, ("opened",)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50_000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        _cut,
        _flip,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("not a checkpoint"),
        lambda p: p.write_bytes(pickle.dumps(Command())),
        lambda p: torch.save({"state_dict": Command()}, p),
        lambda p: torch.save({"weights": torch.zeros(2)}, p),
        lambda p: torch.save([1, 2], p),
        lambda p: p.unlink(),
    ],
    ids=["cut", "flipped byte", "empty", "text", "pickle", "code inside", "foreign", "list", "missing"],
)
def test_spoilt_checkpoint_is_one_line(saved: Path, spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    spoil(saved)
    with pytest.raises(CheckpointError) as error:
        SafeCheckpointIO().load_checkpoint(saved)
    _one_line(error, saved)
    assert not Path("opened").exists()


def test_full_disk_in_a_run_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Full(SafeCheckpointIO):
        def write(self, checkpoint, file) -> None:
            if checkpoint["global_step"] == 5:
                with open("/dev/full", "wb", buffering=0) as full:
                    return super().write(checkpoint, full)
            super().write(checkpoint, file)

    with pytest.raises(UserError, match="disk full"):
        train(tmp_path, steps=8, saver=Full())
    assert SafeCheckpointIO().load_checkpoint(last_checkpoint(tmp_path))["global_step"] == 4
    train(tmp_path, steps=8)
    train(tmp_path / "whole", steps=8)
    one, other = (torch.load(p / "final.pt", weights_only=True) for p in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_unknown_monitor_names_what_is_logged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint.monitor=valid/nothing.*valid/target/loss"):
        train(tmp_path, steps=4, monitor="valid/nothing")


def test_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every=0"):
        Checkpoints(tmp_path, every=0)
