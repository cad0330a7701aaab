import pytest

from ttsadapt.config.base import composed


@pytest.fixture
def compose(tmp_path, monkeypatch):
    """train.yaml with overrides, outputs in a temporary folder."""
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path))
    return composed
