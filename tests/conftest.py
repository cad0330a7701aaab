"""The whole pipeline at its smallest: a corpus of seconds, a base of a few steps, built once for all tests."""

import os
import sys
from pathlib import Path

import pytest

OWN = Path(__file__).parent / "own"

MINI = [
    "base=mini",
    "data.source_voices=[m1,f1]",
    "data.unseen_voices=[m5]",
    "data.source_train=28",
    "data.source_valid=4",
    "data.source_test=4",
    "data.target_train=14",
    "data.target_valid=3",
    "data.target_test=3",
    "data.ood_test=2",
    "data.unseen_train=2",
    "data.unseen_test=2",
    "data.processes=1",
    "batch_frames=500",
    "metric=[mcd,f0]",
    "trainer.max_steps=12",
    "trainer.val_every=6",
    "trainer.checkpoint_every=3",
    "trainer.log_every=2",
    "trainer.progress=false",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
]

SMALL = [
    "backbone.width=32",
    "backbone.hidden=32",
    "backbone.encoder_blocks=1",
    "backbone.decoder_blocks=3",
    "backbone.predictor_hidden=32",
]
"""sizes of the default backbone"""


def _without_stand_ins() -> None:
    """hypothesis reads `__file__` of every module; speechbrain's stand-ins for modules that are not installed then raise ImportError."""
    for name in [n for n, m in list(sys.modules.items()) if type(m).__module__ == "speechbrain.utils.importutils"]:
        del sys.modules[name]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    _without_stand_ins()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        _without_stand_ins()


@pytest.fixture(scope="session")
def outputs(tmp_path_factory):
    """One for all workers: what they share is built under locks."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "outputs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def mini(outputs):
    """`mini("strategy=[lora]", ...)` composes a small run; `mini.args(...)` gives the overrides for a process.

    `small=False`: of another backbone, whose sizes the caller gives.
    """
    os.environ["TTSADAPT_OUTPUTS"], os.environ["TTSADAPT_CONFIG_DIR"] = str(outputs), str(OWN)

    def compose(*overrides, small=True):
        from ttsadapt.config.base import composed

        return composed(*MINI, *(SMALL if small else []), *overrides)

    compose.args = lambda *overrides: [*MINI, *SMALL, *overrides]
    return compose
