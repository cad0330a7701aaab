"""Ctrl-C and SIGTERM end a run with their own exit codes, in the same words, and are no failure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from ttsadapt.config.app import say
from ttsadapt.errors import UserError
from ttsadapt.stopping import GOES_ON, Stopped, call, last_words

APP = """
import time
import torch
from ttsadapt.config.app import command

def training(folder):
    import lightning as L
    from torch.utils.data import DataLoader, TensorDataset
    from ttsadapt.trainer import quiet

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, i):
            (folder / "began").touch()
            time.sleep(0.05)
            return self.layer(batch[0]).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet()
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_epochs=-1, **off).fit(Model(), DataLoader(TensorDataset(torch.ones(8, 2))))

def job(cfg):
    from ttsadapt import run
    from ttsadapt.config.identity import run_folder
    run.refuse_impossible = run.direction = run.listeners = lambda *a: None
    run._train = lambda cfg, folder: training(folder)
    return run.train(cfg)

main = command("train", job)
if __name__ == "__main__":
    main()
"""


def test_a_run_that_is_stopped_says_so_and_has_not_failed(tmp_path):
    (tmp_path / "app.py").write_text(dedent(APP))
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts its jobs deaf to Ctrl-C
    runs = {number: start(tmp_path / number.name) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, heard)
    for number, process in runs.items():
        until(lambda number=number: list((tmp_path / number.name).glob("s/*/began")), process)
        process.send_signal(number)
        process.send_signal(number)  # as `timeout` does
    for number, process in runs.items():
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number and said.splitlines()[-1] == GOES_ON
        assert "Traceback" not in said and "Received" not in said and "graceful" not in said
        (summary,) = (tmp_path / number.name).glob("s/*/summary.json")
        told = json.loads(summary.read_text())
        assert (told["status"], told["error"]) == ("stopped", GOES_ON) and "traceback" not in told


def start(outputs):
    """The program above, with `outputs` of its own."""
    env = os.environ | {"TTSADAPT_OUTPUTS": str(outputs)}
    command = [sys.executable, str(outputs.parent / "app.py"), "base=null", "study=s"]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def until(condition, process=None):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.05)


def over(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_a_summary_says_of_an_end():
    both = [Stopped(signal.SIGINT), Stopped(signal.SIGTERM), KeyboardInterrupt()]
    assert [last_words(error) for error in both] == [{"status": "stopped", "error": GOES_ON}] * 3
    assert last_words(UserError("no voice"))["error"] == "no voice"
    told = last_words(ValueError("a bug"))
    assert told["status"] == "failed" and told["error"] == "ValueError: a bug" and "ValueError: a bug" in told["traceback"]


def test_what_is_waited_for_ends_with_the_wait(tmp_path, monkeypatch):
    """With all that it has started itself."""
    (tmp_path / "child.sh").write_text(f"sleep 60 & echo $! > {tmp_path / 'pid'}\nwait\n")
    known = subprocess.Popen.wait

    def interrupted(self, timeout=None):
        if timeout is None:
            until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip())
            raise Stopped(signal.SIGTERM)
        return known(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(Stopped):
        call(["sh", str(tmp_path / "child.sh")], dict(os.environ))
    pid = int((tmp_path / "pid").read_text())
    until(lambda: over(pid))


def test_one_rank_says_that_all_are_stopped(monkeypatch, capsys):
    assert say("stopped", 143) == 143 and capsys.readouterr().err == "stopped\n"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert say("stopped", 143) == 143 and capsys.readouterr().err == ""
    assert say("no", 1) == 1 and capsys.readouterr().err == "error: no\n"
