"""EWC in whole runs: what it logs, and one stage after another."""

import csv

import pytest
import torch
from safetensors import safe_open

from ttsadapt.config.identity import run_folder
from ttsadapt.run import train

ASKED = [
    "base=null", "metric=[]", "trainer.max_steps=6", "trainer.log_every=1", "strategy.ewc.utterances=8", "strategy.ewc.budget=0.01",
    "strategy.ewc.every=2", "strategy.ewc.decay=0.9", "strategy.ewc.watched=2", "optimizer.lr=0.01",
]  # fmt: skip


def test_two_stages_leave_what_was_measured_and_what_the_next_one_needs(mini):
    first = mini("strategy=[lora,ewc]", *ASKED)
    train(first)
    folder = run_folder(first)
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/ewc")]
    assert len(rows) == 6
    kl, strength = ([float(row[f"train/ewc/{name}"]) for row in rows] for name in ("kl", "strength"))
    assert kl[:2] == [0, 0] and kl[2] == kl[3] > 0 and kl[4] != kl[2], "measured before the third batch and before the fifth"
    assert strength[:2] == [1, 1] and strength[2] == strength[3] != 1
    assert all(float(row["train/ewc"]) >= 0 and float(row["train/ewc/nats"]) >= 0 for row in rows)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert checkpoint["strategies.ewc.budget.multiplier"].item() == pytest.approx(strength[-1])
    assert not any("fisher" in name or "start" in name for name in checkpoint)

    second = mini("strategy=[lora,ewc]", *ASKED, f"strategy.ewc.previous={folder}")
    train(second)
    with (
        safe_open(folder / "ewc" / "fisher.safetensors", "pt") as old,
        safe_open(run_folder(second) / "ewc" / "fisher.safetensors", "pt") as new,
    ):
        assert set(old.keys()) == set(new.keys()) and any(not torch.equal(old.get_tensor(n), new.get_tensor(n)) for n in old.keys())  # noqa: SIM118
