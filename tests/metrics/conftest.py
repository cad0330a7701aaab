from pathlib import Path

import pytest
from sounds import said, voice

from ttsadapt.data.utterance import Utterance


@pytest.fixture
def utterance(tmp_path: Path) -> Utterance:
    return said(tmp_path, "low", voice(110.0))
