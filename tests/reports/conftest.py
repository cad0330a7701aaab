"""One small study, reported once, for every test of the report."""

from pathlib import Path

import pytest
from fabricate import HOSTILE, failed, study

from ttsadapt.reports import build


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with hostile names and texts, two seeds of one system, a failed run."""
    outputs = tmp_path_factory.mktemp("outputs")
    chosen = [(), ("full",), ("csp",), ("ewc", "full", "kd", "rehearsal")]
    folder = study(outputs, "a<b>&_{c}%", chosen, {"target": 8, "source": 8}, text=HOSTILE)
    study(outputs, folder.name, [("lora",)], {"target": 8, "source": 8}, seeds=(0, 1), text=HOSTILE)
    failed(folder, "ValueError: <img src=x onerror=alert(1)>")
    build(folder)
    return folder
