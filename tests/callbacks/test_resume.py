"""A run that was killed and started again is the run that was never killed: the same bits, the same metrics.csv."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch

from callbacks import training
from callbacks.training import Module, SlowIO, metrics, same, train
from ttsadapt.callbacks.checkpoint import SafeCheckpointIO, last_checkpoint
from ttsadapt.callbacks.state import RandomState, capture, restore

WITHIN = {"val_check_interval": 4}  # of 7 batches: validation in the middle of an epoch, then an epoch's end without one
AT_END = {"val_check_interval": 7}
ACROSS = {"val_check_interval": 5, "check_val_every_n_epoch": None, "accumulate_grad_batches": 3, "log_every_n_steps": 2}


class Stop(lightning.Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step >= self.at:
            raise RuntimeError("stopped")


def _stop_and_resume(folder: Path, at: int, **options) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        train(folder, callbacks=[Stop(at)], **options)
    train(folder, **options)


def _train_alone(folder: Path, **options) -> None:
    torch.set_num_threads(1)  # the threads of the parent's pool do not exist after a fork
    train(folder, **options)


def _killed(folder: Path, when: Callable[[], bool], **options) -> bool:
    """Train in a process of its own and `kill -9` it once `when()`; False when it was done first."""
    process = multiprocessing.get_context("fork").Process(target=_train_alone, args=(folder,), kwargs=options)
    process.start()
    end = time.monotonic() + 60
    while process.is_alive() and not when():
        time.sleep(0.002)
        assert time.monotonic() < end, process.kill()
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("options", "stops"), [(WITHIN, (2, 4, 7)), (ACROSS, (3, 5))], ids=["within epochs", "across epochs"])
def test_resumes_exactly(tmp_path: Path, options: dict, stops: tuple[int, ...]) -> None:
    train(tmp_path / "whole", steps=10, **options)
    for at in stops:  # at 4 and 3: the last step of an epoch, which ends with a part-filled accumulation
        _stop_and_resume(tmp_path / f"stopped at {at}", at, steps=10, **options)
        assert same(tmp_path / "whole", tmp_path / f"stopped at {at}"), at


@pytest.mark.slow
@pytest.mark.parametrize("options", [WITHIN, AT_END, ACROSS, {"val_check_interval": 1.0, "accumulate_grad_batches": 1}])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_resumes_exactly_from_every_step(tmp_path: Path, options: dict, every: int) -> None:
    train(tmp_path / "whole", **options)
    for at in range(1, 18):
        _stop_and_resume(tmp_path / f"stopped at {at}", at, every=every, **options)
        assert same(tmp_path / "whole", tmp_path / f"stopped at {at}"), at


def test_kill_in_the_middle_of_an_epoch_and_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    train(whole)
    assert _killed(killed, lambda: len(_rows(killed)) > 2, module=partial(Module, naps=0.01))
    assert (killed / "checkpoints" / "last.ckpt").exists() and not (killed / "final.pt").exists()
    # Each step writes last.ckpt and some of them best.ckpt, so the fifth write is in the middle of the run.
    mark = killed / "writing"
    assert _killed(killed, mark.exists, saver=SlowIO(mark, at=5))
    (left,) = (killed / "checkpoints").glob(".*.tmp")
    SafeCheckpointIO().load_checkpoint(last_checkpoint(killed))
    train(killed)
    assert same(whole, killed)
    assert not left.exists()


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    draw = random.Random(1)
    for trial in range(10):
        folder, kills = tmp_path / f"killed {trial}", 0
        while not (folder / "final.pt").exists():
            end = time.monotonic() + draw.uniform(0.1, 0.6)
            kills += _killed(folder, lambda end=end: time.monotonic() > end, module=partial(Module, naps=0.01))
        assert same(tmp_path / "whole", folder), trial
        assert kills


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_killed_program(tmp_path: Path, devices: int) -> None:
    """From the command line; with two processes each has its own dropout, so both generators must come back."""
    program = [sys.executable, training.__file__, "--devices", str(devices)]
    subprocess.run([*program, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*program, "--naps", "0.2", str(killed)], start_new_session=True, stderr=subprocess.DEVNULL)
    while len(_rows(killed)) < 3 and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*program, str(killed)], check=True, capture_output=True)
    assert same(tmp_path / "whole", killed)


def _rows(folder: Path) -> list[dict[str, str]]:
    return metrics(folder) if (folder / "metrics.csv").exists() else []


def test_a_finished_run_started_again_trains_nothing(tmp_path: Path) -> None:
    first, _ = train(tmp_path, steps=6)
    rows = metrics(tmp_path)
    again, trainer = train(tmp_path, steps=6)
    assert trainer.global_step == 6 and metrics(tmp_path) == rows
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_last_is_saved_every_n_steps_and_at_the_end_and_best_at_the_best(tmp_path: Path) -> None:
    _, trainer = train(tmp_path, steps=7, every=3)
    checkpoints = tmp_path / "checkpoints"
    last = SafeCheckpointIO().load_checkpoint(checkpoints / "last.ckpt")
    best = SafeCheckpointIO().load_checkpoint(checkpoints / "best.ckpt")
    validated = {int(r["step"]) + 1: float(r["valid/target/loss"]) for r in metrics(tmp_path) if r["valid/target/loss"]}
    assert last["global_step"] == 7 and best["global_step"] == min(validated, key=validated.get)
    assert "optimizer_states" not in best and trainer.global_step == 7
    assert sorted(p.name for p in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_random_state_survives_a_file(tmp_path: Path) -> None:
    import numpy as np

    def draws() -> list[float]:
        return [torch.rand(()).item(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]

    random.gauss(0, 1), np.random.randn()  # each leaves half a pair behind in its generator
    torch.save(capture(), tmp_path / "state.pt")
    expected = draws()
    restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == expected


def test_another_number_of_processes_is_said(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    state = RandomState()
    state.load_state_dict({"ranks": [capture(), capture()]})
    with pytest.warns(UserWarning, match="written by 2 processes and goes on with 1"):
        train(tmp_path, steps=4, callbacks=[_Other(state)])


class _Other(lightning.Callback):
    def __init__(self, state: RandomState) -> None:
        self.state = state

    def on_train_start(self, trainer, module) -> None:
        self.state.on_train_start(trainer, module)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_resumes_exactly_on_a_gpu(tmp_path: Path) -> None:
    options = {"accelerator": "gpu", "steps": 10}
    train(tmp_path / "whole", **options)
    for at in (2, 4, 7):
        _stop_and_resume(tmp_path / f"stopped at {at}", at, **options)
        assert same(tmp_path / "whole", tmp_path / f"stopped at {at}"), at
