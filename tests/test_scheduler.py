from itertools import pairwise

import pytest
import torch

from ttsadapt.scheduler import constant, warmup_cosine


def rates(make, steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule, seen = make(optimizer, **options), []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_warmup_then_cosine_to_the_floor():
    seen = rates(warmup_cosine, 121, max_steps=100, warmup=0.1, floor=0.05)
    assert seen[0] == pytest.approx(2.0 / 11)
    assert all(a < b for a, b in pairwise(seen[:11]))
    assert seen[10] == 2.0
    assert all(a > b for a, b in pairwise(seen[10:101]))
    assert seen[55] == pytest.approx(2.0 * (0.05 + 0.95 / 2))
    assert seen[100] == seen[120] == pytest.approx(0.1)


def test_constant_after_warmup():
    assert rates(constant, 5, max_steps=100) == [2.0] * 5
    assert rates(constant, 4, max_steps=10, warmup=0.2) == pytest.approx([2 / 3, 4 / 3, 2.0, 2.0])


def test_state_can_be_loaded_without_pickle(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torch.save(warmup_cosine(optimizer, max_steps=10).state_dict(), tmp_path / "s.pt")
    assert torch.load(tmp_path / "s.pt", weights_only=True)["last_epoch"] == 0
