"""Where models speak: where they would train, whichever command lets them."""

from types import SimpleNamespace

import lightning.fabric.accelerators.cuda as cuda
import pytest
import torch

from ttsadapt.config.base import composed
from ttsadapt.config.identity import run_folder
from ttsadapt.errors import ConfigError
from ttsadapt.learner import Learner
from ttsadapt.trainer import device_of


@pytest.fixture
def accelerators(monkeypatch):
    """The machine seems to have two; gives where learners were sent. They stay where they are."""
    sent = []
    monkeypatch.setattr(cuda, "num_cuda_devices", lambda: 2)
    monkeypatch.setattr(Learner, "to", lambda self, device: sent.append(str(device)) or self)
    return sent


def test_the_device_is_the_one_that_would_train(accelerators):
    asked = {("auto", 1): "cuda:0", ("gpu", 2): "cuda:0", ("gpu", (1, 0)): "cuda:1", ("cpu", 1): "cpu", ("auto", "auto"): "cuda:0"}
    assert {key: str(device_of(*key)) for key in asked} == asked


def test_a_device_that_is_not_here_is_one_line(monkeypatch):
    monkeypatch.setattr(cuda, "num_cuda_devices", lambda: 0)
    assert device_of("auto") == torch.device("cpu")
    for name in ("cuda", "warp"):
        with pytest.raises(ConfigError, match=rf"^accelerator={name} is not on this machine \(.*\): give auto or cpu$"):
            device_of(name)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("accelerator=gpu", "devices=2"), "No supported gpu backend found"),
        (("accelerator=warp",), "warp"),
        (("accelerator=cpu", "strategy=ddq"), "ddq"),
        (("accelerator=cpu", "devices=0"), "."),
    ],
)
def test_what_cannot_train_here_is_refused_before_anything_is_made(asked, why, mini, monkeypatch):
    from ttsadapt.run import train

    monkeypatch.setattr(cuda, "num_cuda_devices", lambda: 0)
    cfg = mini("study=hardware", *(f"trainer.{key}" for key in asked))
    with pytest.raises(ConfigError, match=f"^trainer.accelerator={cfg.trainer.accelerator} .*{why}.*: give auto, or what is here$") as told:
        train(cfg)
    assert "\n" not in str(told.value) and not run_folder(cfg).exists()


def test_what_can_train_here_is_not_refused(mini):
    from ttsadapt.trainer import refuse_hardware

    for asked in (["accelerator=cpu", "devices=2", "strategy=ddp"], ["accelerator=auto"], ["precision=bf16-mixed"]):
        refuse_hardware(mini(*(f"trainer.{key}" for key in asked)))


def test_the_untuned_model_and_every_command_speak_on_it(mini, accelerators, monkeypatch, tmp_path):
    from ttsadapt import finished, matrix, sweeping
    from ttsadapt.run import train

    cfg = mini("strategy=[]", "metric=[]", "base=null", "study=devices", "trainer.accelerator=auto")
    train(cfg)  # it trains nothing, so no trainer knows of a device
    folder, asked = run_folder(cfg), ["metric=[energy_range]"]
    finished.synthesize(composed(f"run={folder}", "text='Hello there.'", f"out={tmp_path / 'a.wav'}", name="synthesize"), folder)
    finished.synthesize(composed(f"run={folder}", "text=Hello", f"out={tmp_path / 'b.wav'}", "accelerator=cpu", name="synthesize"), folder)
    monkeypatch.setattr(finished, "score_run", stop)
    with pytest.raises(StopIteration):
        finished.evaluate(composed(*asked, name="evaluate"), folder, asked)
    monkeypatch.setattr(sweeping, "refuse_settings", stop)
    with pytest.raises(StopIteration):
        sweeping.sweep(composed("decoding.top_k=5", name="decode"), folder, [])
    other = matrix.Elsewhere.__new__(matrix.Elsewhere)
    data = SimpleNamespace(names=lambda: [])
    other.model = SimpleNamespace(cfg=cfg, folder=folder, title="")
    other.task = SimpleNamespace(assembly=data, cfg=cfg, title="", set="target", sentences=[])
    monkeypatch.setattr(matrix, "spoken_scores", stop)
    with pytest.raises(StopIteration):
        other.build(tmp_path)
    assert accelerators == ["cuda:0", "cuda:0", "cpu", "cuda:0", "cuda:0", "cuda:0"]


def stop(*_, **__):
    raise StopIteration
