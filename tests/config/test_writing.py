"""A place that cannot be written is the user's mistake; any other OSError is ours."""

import errno
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ttsadapt.config.app import command
from ttsadapt.config.writing import unwritable
from ttsadapt.files import write_text


@pytest.fixture
def ask(monkeypatch, capsys):
    """Run a job as the command `name`; what it printed to stderr."""

    def ask(name, job, *arguments):
        monkeypatch.setattr(sys, "argv", ["ttsadapt", *arguments])
        with pytest.raises(SystemExit) as stop:
            command(name, job)()
        assert stop.value.code == 1
        return capsys.readouterr().err

    return ask


@pytest.fixture
def taken(tmp_path):
    """A file where a folder is wanted: root may write anywhere else."""
    (tmp_path / "taken").write_text("")
    return tmp_path / "taken"


@pytest.mark.parametrize("name", ["prepare", "train"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_outputs_that_cannot_be_written(name, below, ask, taken, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(taken / below))
    said = ask(name, lambda cfg: None, *(["base=null"] if name == "train" else []))
    assert said.count("\n") == 1 and said.startswith(f"error: {taken}") and "cannot be written" in said
    assert said.endswith("set TTSADAPT_OUTPUTS or paths.outputs=... to a folder that can\n") and "is a file" in said


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_outputs_that_the_system_refuses(ask, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", "/proc/outputs")
    assert ask("prepare", lambda cfg: None).startswith("error: /proc/outputs cannot be written (/proc takes no files: No such file")


def test_a_sweep_whose_outputs_cannot_be_written(ask, taken, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(taken))
    said = ask("train", lambda cfg: None, "-m", "base=null", "seed=1,2")
    assert f"error: {taken}/adhoc cannot be written ({taken} is a file)" in said and "Traceback" not in said


FILES = {
    "synthesize": (["run=a", "text=b"], "out"),
    "compare": (["runs=[a,b]"], "to"),
    "evaluate": (["wavs=a", "base=null"], "scores_to"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written(name, ask, taken, tmp_path, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path / "outputs"))
    given, key = FILES[name]

    def job(cfg):
        folder = Path(cfg[key]) if key == "scores_to" else Path(cfg[key]).parent
        write_text(folder / "scores.csv", "x")

    said = ask(name, job, *given, f"{key}={taken}/x")
    assert said == f"error: {taken}/x cannot be written ({taken} is a file): give another with {key}=...\n"


def test_a_folder_in_place_of_a_file(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path / "outputs"))
    said = ask("synthesize", lambda cfg: write_text(Path(cfg.out), "x"), "run=a", "text=b", f"out={tmp_path}")
    assert said == f"error: {tmp_path} cannot be written (it is a folder): give another with out=...\n"


def test_a_bug_keeps_its_traceback(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path / "outputs"))
    for missing in (Path("/nowhere/in/the/package.json"), tmp_path / "outputs" / "a" / "missing.json"):
        said = ask("train", lambda cfg, missing=missing: missing.read_text(), "base=null")
        assert "Traceback" in said and "FileNotFoundError" in said


def test_a_full_disk(tmp_path):
    cfg = OmegaConf.create({"paths": {"outputs": str(tmp_path)}})
    assert "the disk is full" in unwritable(OSError(errno.ENOSPC, "No space", str(tmp_path / "a" / "b.wav")), cfg)
    assert unwritable(OSError(errno.ENOSPC, "No space"), cfg) is None and unwritable(ValueError("x"), cfg) is None
