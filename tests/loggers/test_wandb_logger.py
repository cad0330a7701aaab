"""Everything off line, read back from the file on disk."""

import json
import multiprocessing
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from loggers.wandb_file import Offline, read
from ttsadapt.errors import ConfigError
from ttsadapt.loggers import wandb as module
from ttsadapt.loggers.base import Used
from ttsadapt.loggers.wandb import WandbLogger, answers, choose_mode, public

CONFIG = {"name": "lora+ewc", "strategy": {"lora": {"rank": 4}, "ewc": {"weight": 1.0}}, "seed": 1, "base_hash": "abc123"}


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def _logger(folder: Path, run_id: str = "run1", **options) -> WandbLogger:
    return WandbLogger(**({"folder": folder, "run_id": run_id, "study": "compare", "config": CONFIG} | options))


def _read(folder: Path, finished: bool = True) -> list[Offline]:
    """Runs in the order they began. W&B's service may write the end of the last one a moment after `finish` returned."""
    for _ in range(600):
        runs = [read(f) for f in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")) if f.stat().st_size]
        if runs and (runs[-1].exit_code is not None if finished else runs[-1].history):
            return runs
        time.sleep(0.05)
    raise AssertionError(f"no run in {folder}")


def test_a_run_and_the_next_one_in_the_same_process(tmp_path: Path) -> None:
    """Identity, history, media, table and lineage; the second job logs into its own run and fails."""
    first, second = _logger(tmp_path / "first"), _logger(tmp_path / "second", "run2")
    for step in range(3):
        first.log_metrics({"train/loss": 1 / (step + 1), "epoch": 0}, step)
    first.log_metrics({"train/loss": 1 / 3, "epoch": 0}, 2)  # the step of a checkpoint comes twice
    first.finalize("success")
    second.log_metrics({"train/loss": 9.0}, 0)
    first.log_audio("valid/hello", torch.sin(torch.arange(1600) / 5), 16000, 3, "hello")
    first.log_mel("valid/hello/mel", torch.randn(40, 80), 3)
    first.log_table("scores", ["set", "mean"], [["target", 0.5], ["source", 0.25]])
    adapter, checkpoint = tmp_path / "first" / "adapter", tmp_path / "first" / "last.ckpt"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    checkpoint.write_bytes(bytes(1000))
    first.log_artifact("run-run1", "run", checkpoint, [Used("base-abc123", "base", "abc123")])
    first.log_artifact("adapter-run1", "adapter", adapter, [Used("run-run1", "run", "run1")])
    first.finish()
    second.finish(failed=True)
    ((one,), (two,)) = _read(tmp_path / "first"), _read(tmp_path / "second")

    assert (one.run.run_id, one.run.run_group, one.run.job_type, list(one.run.tags)) == ("run1", "compare", "train", ["ewc", "lora"])
    assert {k: one.config[k] for k in CONFIG} == CONFIG and one.exit_code == 0
    assert [(h["trainer/global_step"], h["train/loss"]) for h in one.history[:3]] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    media = [{k.rpartition("/")[2]: v for k, v in h.items()} for h in one.history[3:]]  # "valid/hello/path" -> "path"
    assert [m["_type"] for m in media] == ["audio-file", "image-file", "table-file"]
    files = next((tmp_path / "first").glob("wandb/offline-run-*/files"))
    assert all((files / m["path"]).stat().st_size > 100 for m in media[:2])
    assert json.loads((files / media[2]["path"]).read_text())["data"] == [["target", 0.5], ["source", 0.25]]

    table, used, run, made = one.artifacts
    assert table.type == "run_table"
    assert (used.name, used.type, used.use_after_commit) == ("base-abc123", "base", True)
    assert (run.name, run.use_after_commit, [c.path for c in run.manifest.contents]) == ("run-run1", False, ["run-run1.json"])
    assert (made.name, made.type, [c.path for c in made.manifest.contents]) == ("adapter-run1", "adapter", ["adapter_config.json"])
    assert all(Path(c.local_path).is_relative_to(tmp_path / "first") for a in one.artifacts for c in a.manifest.contents)

    assert (two.run.run_id, two.exit_code, [h["train/loss"] for h in two.history]) == ("run2", 1, [9.0])
    assert not (tmp_path / "home" / ".local").exists()  # no copies of what was logged: only debug logs of the service lie in its cache


def test_a_run_taken_up_again_keeps_its_id(tmp_path: Path) -> None:
    """Off line it is two folders, which `wandb sync` joins."""
    for step, loss in enumerate((1.0, 0.5)):
        logger = _logger(tmp_path)
        logger.log_metrics({"loss": loss}, step)
        logger.finish(failed=step == 0)
        _read(tmp_path)
        time.sleep(1.1 * (step == 0))  # folders are named by the second
    one, two = _read(tmp_path)
    assert one.run.run_id == two.run.run_id == "run1" and (one.exit_code, two.exit_code) == (1, 0)
    assert [h["loss"] for h in one.history + two.history] == [1.0, 0.5]


def _log_and_wait(folder: Path) -> None:
    logger = _logger(folder)
    for step in range(2000):  # the service writes blocks of 32 KiB: what is younger is lost with it
        logger.log_metrics({"loss": 1.0}, step)
    signal.pause()


@pytest.mark.slow
def test_a_killed_run_goes_on_under_its_id(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_log_and_wait, args=(tmp_path,))
    process.start()
    (killed,) = _read(tmp_path, finished=False)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again = _logger(tmp_path)
    again.log_metrics({"loss": 0.5}, 1000)
    again.finish()
    one, two = _read(tmp_path)
    assert killed.run.run_id == one.run.run_id == two.run.run_id == "run1"
    assert one.history[0] == {"loss": 1.0, "trainer/global_step": 0} and len(one.history) > 50
    assert [h["loss"] for h in two.history] == [0.5] and two.exit_code == 0


def test_a_run_that_failed_before_it_logged_is_seen(tmp_path: Path) -> None:
    _logger(tmp_path / "failed").finish(failed=True)
    assert _read(tmp_path / "failed")[0].exit_code == 1
    _logger(tmp_path / "nothing").finish()
    assert not (tmp_path / "nothing").exists()


def test_mode_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "answers", lambda url: bool(asked.append(url)) or True)
    assert choose_mode("auto") == "offline" and not asked  # no key: the network is not even tried
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert choose_mode("auto") == "online" and len(asked) == 1
    monkeypatch.setattr(module, "answers", lambda url: False)
    assert choose_mode("auto") == choose_mode("online") == "offline"
    monkeypatch.setattr(module, "answers", lambda url: True)
    for setting, mode in {"offline": "offline", "dryrun": "offline", "disabled": "disabled", "online": "online"}.items():
        monkeypatch.setenv("WANDB_MODE", setting)
        assert choose_mode("auto") == mode
    assert choose_mode("offline") == "offline"


def test_refused_key_falls_back_to_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_mode", lambda mode: "online")
    opened, real = [], WandbLogger._open

    def refusing(self: WandbLogger, mode: str) -> object:
        opened.append(mode)
        if mode == "online":
            raise RuntimeError("permission denied\nwith details")
        return real(self, mode)

    monkeypatch.setattr(WandbLogger, "_open", refusing)
    logger = _logger(tmp_path)
    with pytest.warns(UserWarning, match=r"not reachable \(permission denied\)"):
        logger.log_metrics({"loss": 1.0}, 0)
    logger.finish()
    assert opened == ["online", "offline"] and _read(tmp_path)[0].history[0]["loss"] == 1.0


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None: ...


def test_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert answers(url)  # it is there, whatever it says
    server.shutdown()
    server.server_close()
    begin = time.monotonic()
    assert not answers(url, seconds=0.5) and not answers("no url", seconds=0.2)
    assert time.monotonic() - begin < 3


def test_secrets_and_home_stay_here() -> None:
    config = {
        "api_key": "k", "hf_token": "t", "db-password": "p", "data": [{"path": Path("/Users/me/voices"), "secret": "s"}],
        "tokens_per_second": 5.0, "pad_token": 3, "out": "see /Users/me/x",
    }  # fmt: skip
    assert public(config, home="/Users/me") == {
        "data": [{"path": "~/voices"}], "tokens_per_second": 5.0, "pad_token": 3, "out": "see ~/x",
    }  # fmt: skip


def test_unknown_mode(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mode='onlin'"):
        _logger(tmp_path, mode="onlin")
