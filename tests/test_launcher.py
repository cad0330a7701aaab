import json
import os
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from hydra_plugins.ttsadapt_launcher import _jobs
from hydra_plugins.ttsadapt_launcher._jobs import Job, environment
from hydra_plugins.ttsadapt_launcher._sweep import Screen, duration, names
from ttsadapt.config.plain import quoted

APP = """
import os, sys, time
from pathlib import Path
from ttsadapt.config.app import command
from ttsadapt.files import write_json

def job(cfg):
    from ttsadapt.config.identity import code_hash, run_folder
    folder = run_folder(cfg)
    print("threads", os.environ["OMP_NUM_THREADS"], "rank", os.environ.get("LOCAL_RANK"), flush=True)
    write_json(folder / "pid.json", os.getpid())
    if cfg.seed == 13:
        raise RuntimeError("unlucky")
    if cfg.seed == 60:
        time.sleep(60)
    write_json(folder / "summary.json", {"status": "finished", "pid": os.getpid()})
    write_json(folder / "provenance.json", {"code": code_hash()})
    return cfg.seed / 2

main = command("train", job)
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def sweep(tmp_path):
    """Start the program of a job as a sweep; nothing of what it stands for is imported."""
    (tmp_path / "app.py").write_text(dedent(APP))
    own = {"TTSADAPT_OUTPUTS": str(tmp_path / "out"), "LOCAL_RANK": "1", "OMP_NUM_THREADS": ""}
    env = {k: v for k, v in (os.environ | own).items() if v}

    def start(*overrides, wait=True):
        command = [sys.executable, str(tmp_path / "app.py"), "-m", "base=null", "report=false", "study=s", *overrides]
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts its jobs deaf to Ctrl-C
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        signal.signal(signal.SIGINT, heard)
        return (process.communicate()[0], process.returncode) if wait else process

    start.runs = tmp_path / "out" / "s"
    return start


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_failing_job_stops_no_other_and_finished_ones_are_not_run_again(sweep):
    said, code = sweep("seed=13,1", "strategy=[lora,ewc],[ewc,lora]", "hydra.launcher.n_jobs=2")
    assert code == 1
    assert "seed=13  FAILED" in said and "RuntimeError: unlucky" in said and "stdout.log" in said
    assert "4 runs in" in said and "1 finished, 2 repeated, 1 failed" in said
    assert said.rstrip().splitlines()[-1].startswith("error: 1 of 4 runs failed: ")
    folders = [folder for folder in sweep.runs.iterdir() if folder.is_dir()]
    assert len(folders) == 2  # the order of strategies makes no other run
    done = next(folder for folder in folders if (folder / "summary.json").is_file())
    before = (done / "summary.json").read_text()
    assert json.loads((done / "result.json").read_text()) == 0.5
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert (done / "stdout.log").read_text() == f"threads {threads} rank None\n"

    (done / "provenance.json").write_text('{"code": "older"}')
    said, code = sweep("seed=1", "strategy=[lora,ewc]")
    assert code == 0
    assert "1 of 1 runs are finished already" in said and "made by other code than this" in said
    assert (done / "summary.json").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_when_the_launcher_is_stopped(sweep, number):
    process = sweep("seed=60", wait=False)
    until(lambda: list(sweep.runs.glob("*/pid.json")))
    (pid,) = (json.loads(file.read_text()) for file in sweep.runs.glob("*/pid.json"))
    assert alive(pid)
    process.send_signal(number)
    said = process.communicate(timeout=30)[0]
    until(lambda: not alive(pid), seconds=20)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert said.endswith("0 of 1 runs are finished\nstopped: the same command goes on from here\n")


DDP = """
import os
from ttsadapt.config.app import command

def job(cfg):
    import lightning as L
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, i):
            if (cfg.seed, self.global_rank, i) == (13, 1, 1):
                raise RuntimeError("rank 1 crashes")
            return self.layer(batch[0]).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, **quiet)
    trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(16, 2)), batch_size=2))
    print(f"rank {trainer.global_rank} of {trainer.world_size} done", flush=True)

main = command("train", job)
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_distributed_jobs_and_the_crash_of_one_rank(sweep, tmp_path):
    (tmp_path / "app.py").write_text(dedent(DDP))
    said, code = sweep("seed=13,1", "hydra.launcher.n_jobs=1")
    assert code == 1 and "1 finished, 1 failed" in said
    logs = [file.read_text() for file in sweep.runs.glob("*/stdout.log")]
    assert sum("rank 0 of 2 done" in log and "rank 1 of 2 done" in log for log in logs) == 1
    assert sum("rank 1 crashes" in log for log in logs) == 1
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in processes


def returns(*overrides):
    strategies = [[o.partition("=")[2].strip("[]").split(",") for o in each if o.startswith("strategy")] for each in overrides]
    configs = [OmegaConf.create({"strategy": {s: {} for group in found for s in group if s}}) for found in strategies]
    return [JobReturn(overrides=list(each), cfg=cfg) for each, cfg in zip(overrides, configs)]


def test_names_say_what_differs():
    both = returns(["study=a", "strategy=[]", "seed=1"], ["study=a", "strategy=[lora,ewc]", "seed=1"])
    assert names(both) == ["base", "ewc+lora"]
    both = returns(["strategy=[lora]", "optimizer.lr=0.1"], ["strategy=[lora]", "optimizer.lr=0.2"])
    assert names(both) == ["lr=0.1", "lr=0.2"]
    assert names(returns(["strategy=[lora]", "seed=1"])) == ["lora"]


def test_a_job_starts_with_a_clean_environment(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = environment(2)
    assert not {"LOCAL_RANK", "WORLD_SIZE"} & found.keys()
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("2", "7")


def test_progress_of_a_job(tmp_path):
    cfg = OmegaConf.create({"trainer": {"max_steps": 400}})
    job = Job(JobReturn(overrides=[], cfg=cfg, working_dir=str(tmp_path)), "x")
    assert job.progress() == ""
    (tmp_path / "metrics.csv").write_text("step,epoch,lr\n0,0,1\n119,3,1\n")
    assert job.progress() == "120/400"
    (tmp_path / "progress.json").write_text('{"stage": "score", "step": 3, "total": 20}')
    assert job.progress() == "score 3/20"
    (tmp_path / "progress.json").write_text('{"sta')
    assert job.progress() == ""
    assert job.last_words() == "no output"
    job.log.write_text("first\nlast words\n\n")
    assert job.last_words() == "last words"


def test_folders_survive_hydras_grammar():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for path in ('a "b" \\c, {d} [e]=f', 'a\\"b', "C:\\x\\"):
        assert OverridesParser.create().parse_override(f"k={quoted(path)}").value() == path


def test_without_a_terminal_the_status_is_a_line_now_and_then(capsys, monkeypatch):
    screen = Screen()
    screen.terminal = False
    screen.status("busy")
    assert capsys.readouterr().out == ""
    screen.quiet_since -= 61
    screen.status("busy")
    assert capsys.readouterr().out == "busy\n"


def test_on_a_terminal_the_status_is_rewritten(capsys):
    screen = Screen()
    screen.terminal = True
    screen.status("busy")
    screen.line("done")
    assert capsys.readouterr().out == "\r\x1b[2Kbusy\r\x1b[2Kdone\n"


def test_durations():
    assert [duration(s) for s in (0.2, 61, 3661)] == ["0:00", "1:01", "1:01:01"]


def test_a_job_is_this_program_again():
    asked = ["hydra.verbose=true", "hydra.mode=MULTIRUN", "hydra.sweep.dir=x"]
    hydra = {"runtime": {"config_sources": []}, "overrides": {"hydra": asked}, "job": {"config_name": "train"}}
    config = {"hydra": hydra}
    job = Job(JobReturn(overrides=["seed=1"], cfg=OmegaConf.create(config), working_dir="/out/s/id"), "x")
    command = job.command()
    assert command[0] == sys.executable
    assert command[-6:] == ["--config-name", "train", "hydra.verbose=true", "seed=1", "hydra.mode=RUN", 'hydra.run.dir="/out/s/id"']
    assert _jobs.GRACE > 0
