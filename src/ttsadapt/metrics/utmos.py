"""How natural it sounds to a network that learnt from listeners: UTMOS (Saeki et al. 2022), the strong learner, through torch.hub."""

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate
from ttsadapt.metrics.weights import hashed

_ENTRY, _WEIGHTS = "utmos22_strong", "utmos22_strong_step7459_v1.pt"


class Utmos(UtteranceMetric):
    """Predicted opinion, 1 to 5, one clip at a time: padding shifts it. NaN for silence.

    `path`: a copy of the repository tarepan/SpeechMOS; null looks into torch.hub's cache. Its code is run, as torch.hub does.
    """

    name: ClassVar[str] = "utmos"
    unit: ClassVar[str] = "MOS"
    better: ClassVar[str] = "higher"

    def __init__(self, path: str | None = None, limit: int | None = None) -> None:
        super().__init__()
        self.path, self.limit = path, limit

    @property
    def model(self) -> str:
        return f"SpeechMOS {_ENTRY}"

    @property
    def revision(self) -> str:
        weights = _weights()
        return hashed(weights) if weights.is_file() else ""

    def missing(self) -> str | None:
        how = f'torch.hub.load("tarepan/SpeechMOS:v1.2.0", "{_ENTRY}", trust_repo=True) puts it there where there is a network'
        if folder_of(self.path) is None:
            return f"UTMOS is not in {self.path or torch.hub.get_dir()}: {how}, or give metric.utmos.path=<folder of the repository>"
        return None if _weights().is_file() else f"UTMOS has no weights {_weights()}: {how}"

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        audio = at_rate(audio, rate)
        if len(audio) < RATE // 10 or not audio.any():
            return SILENT
        with torch.inference_mode():
            return float(_opened(str(folder_of(self.path)))(audio[None], RATE))


def folder_of(path: str | None) -> Path | None:
    """The repository: at `path`, or in torch.hub's cache (the last version of several)."""
    places = [Path(path).expanduser()] if path else sorted(Path(torch.hub.get_dir()).glob("tarepan_SpeechMOS_*"))
    return next((p for p in reversed(places) if (p / "hubconf.py").is_file()), None)


def _weights() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS


@lru_cache(maxsize=1)
def _opened(folder: str) -> Any:
    return torch.hub.load(folder, _ENTRY, source="local", trust_repo=True).eval()
