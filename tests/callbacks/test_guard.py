from functools import partial
from pathlib import Path

import pytest
import torch

from callbacks.training import Module, train
from ttsadapt.callbacks.checkpoint import SafeCheckpointIO, last_checkpoint
from ttsadapt.callbacks.guard import FiniteLoss
from ttsadapt.errors import UserError

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def _last(folder: Path) -> dict:
    return SafeCheckpointIO().load_checkpoint(last_checkpoint(folder))


@pytest.mark.parametrize("accelerator", DEVICES)
def test_nan_names_step_and_term_and_keeps_the_last_good_checkpoint(tmp_path: Path, accelerator: str) -> None:
    with pytest.raises(UserError, match=r"^step 5: the loss is not finite in kd \(nan\)") as error:
        train(tmp_path, steps=9, every=2, module=partial(Module, bad_step=5), accelerator=accelerator, log_every_n_steps=100)
    assert "\n" not in str(error.value) and "task" not in str(error.value)
    last = _last(tmp_path)
    assert last["global_step"] == 4 and all(t.isfinite().all() for t in last["state_dict"].values())


@pytest.mark.parametrize("accelerator", DEVICES)
def test_nan_gradient_of_a_finite_loss_is_never_saved(tmp_path: Path, accelerator: str) -> None:
    with pytest.raises(UserError, match=r"^step 6: weight net\.0\.weight became NaN"):
        train(tmp_path, steps=9, every=2, module=partial(Module, bad_step=6, gradient_only=True), accelerator=accelerator)
    last = _last(tmp_path)
    assert last["global_step"] == 4 and all(t.isfinite().all() for t in last["state_dict"].values())


def test_values_may_wait_for_the_log_interval(tmp_path: Path) -> None:
    """As on a GPU: looked at every fourth step, and the first bad one is still what is named."""
    with pytest.raises(UserError, match=r"^step 5: the loss is not finite in kd \(nan\)"):
        train(tmp_path, steps=9, every=100, module=partial(Module, bad_step=5), guard=FiniteLoss(each_batch=False), log_every_n_steps=4)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
