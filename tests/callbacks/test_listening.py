"""Listening during validation leaves the run as it was; what it hears can be monitored, and stops training at one and the same step."""

import random
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from callbacks.training import Module, metrics, same, train
from ttsadapt.backbones.base import Request
from ttsadapt.callbacks.checkpoint import SafeCheckpointIO
from ttsadapt.callbacks.listening import Listening
from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import UtteranceMetric

OPTIONS = {"val_check_interval": 4, "steps": 14}
MONITOR = "valid/target/loud"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Speaking` stands for the learner."""
    monkeypatch.setattr("ttsadapt.callbacks.listening.Learner", Speaking)


@dataclass
class Asks:
    def request(self, utterance: Utterance) -> Request:
        return Request(utterance.id, (), torch.zeros(1))


class Mouth(torch.nn.Module):
    """Says a tone as loud as its weights have it, and disturbs whatever a synthesis could."""

    sample_rate = 8000

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net, self.frontend, self.asked = net, Asks(), []

    def synthesize(self, requests: list[Request], progress=None) -> list[torch.Tensor]:
        torch.rand(5), np.random.rand(3), random.random()
        self.net.eval()
        self.asked.append([(r.id, r.seed) for r in requests])
        level = 1.1 + float(torch.sin(9 * sum(p.detach().abs().sum() for p in self.net.parameters())))  # neither up nor down for ever
        return [torch.full((800,), level) for _ in requests]


class Speaking(Module):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.backbone = Mouth(self.net)

    def train(self, mode: bool = True):
        super().train(mode)
        self.net[0].eval()  # as a learner keeps what is frozen
        return self


class Loud(UtteranceMetric):
    name, unit, better = "loud", "", "lower"

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    model, version = property(lambda self: "mean"), property(lambda self: "1")

    def open(self, corpus: Path, cache: Path) -> None:
        torch.nn.Linear(4, 4)  # drawn, as a judge's weights are
        self.opened += 1

    def score(self, audio: torch.Tensor, rate: int, utterance: Utterance) -> float:
        return float(audio.mean())


def utterance(name: str) -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), name, "anna", "neutral")


def ears(every: int = 1) -> Listening:
    return Listening({"target": [utterance("a"), utterance("b")]}, {"loud": Loud()}, Path(), Path(), every, seed=3)


def go(folder: Path, listening: Listening | None = None, callbacks: tuple = (), **options):
    heard = [listening] if listening else []
    return train(folder, module=Speaking, callbacks=[*callbacks, *heard], listening=listening, **OPTIONS | options)


def test_the_same_weights_with_and_without_listening(tmp_path: Path) -> None:
    go(tmp_path / "deaf")
    listening = ears()
    model, _ = go(tmp_path / "heard", listening)
    deaf, heard = (torch.load(tmp_path / n / "final.pt", weights_only=True) for n in ("deaf", "heard"))
    assert all(torch.equal(deaf[k], heard[k]) for k in deaf)
    assert listening.metrics["loud"].opened == 1
    assert {tuple(a) for a in model.backbone.asked} == {(("a", 3), ("b", 3))}
    rows = [r for r in metrics(tmp_path / "heard") if r["valid/target/loss"]]
    assert len(rows) == listening.times > 3 and all(float(r[MONITOR]) > 0 for r in rows)
    assert [{k: v for k, v in r.items() if k != MONITOR} for r in metrics(tmp_path / "heard")] == metrics(tmp_path / "deaf")


def test_modes_are_as_they_were(tmp_path: Path) -> None:
    listening, model = ears(), Speaking()
    model.train()
    before = [m.training for m in model.modules()]
    listening._heard(model.backbone)
    assert [m.training for m in model.modules()] == before and len(set(before)) == 2


def test_best_follows_what_is_heard_and_not_the_loss(tmp_path: Path) -> None:
    listening = ears(every=2)
    _, trainer = go(tmp_path, listening, monitor=MONITOR, mode="max")
    heard = {int(r["step"]) + 1: float(r[MONITOR]) for r in metrics(tmp_path) if r[MONITOR]}
    validated = [r for r in metrics(tmp_path) if r["valid/target/loss"]]
    assert len(heard) == len(validated) // 2
    best = max(heard, key=heard.get)
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == best
    said = trainer.checkpoint_callback.summary()
    assert said["best"]["step"] == best and said["best"]["value"] == pytest.approx(heard[best]) and not said["stopped_early"]


class Stop(lightning.Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step >= self.at:
            raise RuntimeError("stopped")


def test_patience_ends_a_resumed_run_where_it_ends_an_unbroken_one(tmp_path: Path) -> None:
    def patient(folder: Path, *callbacks, every: int = 1):
        listening = ears()
        asked = {"monitor": MONITOR, "mode": "min", "patience": 2, "steps": 60}
        return go(folder, listening, callbacks, every=every, **asked)

    _, whole = patient(tmp_path / "whole")
    validated = [float(r[MONITOR]) for r in metrics(tmp_path / "whole") if r[MONITOR]]
    assert whole.global_step < 60 and min(validated) not in validated[-2:] and min(validated) == validated[-3]
    for at in (1, whole.global_step - 1):
        folder = tmp_path / f"cut at {at}"
        with pytest.raises(RuntimeError, match="stopped"):
            patient(folder, Stop(at))
        _, resumed = patient(folder)
        assert resumed.global_step == whole.global_step and same(tmp_path / "whole", folder)
    _, again = patient(tmp_path / "whole")  # killed after the decision: it is remembered
    assert again.global_step == whole.global_step and same(tmp_path / "whole", folder)
    assert again.checkpoint_callback.summary()["stopped_early"]
    _, rarely = patient(tmp_path / "rarely saved", every=50)
    assert rarely.global_step == whole.global_step
    last = SafeCheckpointIO().load_checkpoint(tmp_path / "rarely saved" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == whole.global_step


def test_silence_that_is_not_finite_is_no_best(tmp_path: Path) -> None:
    from ttsadapt.callbacks.listening import mean

    metric, said = Loud(), [utterance("a"), utterance("b")]
    clips = {"a": torch.ones(10), "b": torch.full((10,), 3.0)}
    assert mean(metric, said, clips, 8000) == 2
    assert np.isnan(mean(metric, said, clips | {"b": torch.full((10,), torch.nan)}, 8000))
    metric.limit = 1
    assert mean(metric, said, clips, 8000) in (1, 3)


def test_a_metric_hears_what_the_model_puts_out() -> None:
    """Resampled samples at full scale would be at full scale no more, and others would."""

    class Asking(Loud):
        def score(self, audio: torch.Tensor, rate: int, utterance: Utterance) -> float:
            return rate + len(audio)

    listening = ears()
    listening.metrics = {"loud": Asking()}
    assert listening._heard(Speaking().backbone) == {MONITOR: 8000 + 800}


def test_patience_does_not_count_validations_that_know_nothing(tmp_path: Path) -> None:
    class Deaf(Loud):
        def score(self, audio: torch.Tensor, rate: int, utterance: Utterance) -> float:
            return float("nan")

    listening = ears()
    listening.metrics = {"loud": Deaf()}
    _, trainer = go(tmp_path, listening, monitor=MONITOR, patience=1)
    saved = trainer.checkpoint_callback
    assert trainer.global_step == OPTIONS["steps"] and saved.waited == 0 and saved.best is None and not saved.stopped
