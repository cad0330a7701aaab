"""Does it sound clean: DNS-MOS (Reddy et al. 2022, P.835), the networks that the speechmos wheel carries."""

from importlib.metadata import version as installed
from typing import ClassVar

import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate


class DnsMos(UtteranceMetric):
    """Overall quality, 1 to 5. NaN for silence.

    Made to rank noise suppressors: it says little about prosody. A clip below 9 s is repeated until it fills the window.
    """

    name: ClassVar[str] = "dnsmos"
    unit: ClassVar[str] = "MOS"
    better: ClassVar[str] = "higher"
    higher_is_better = True

    def __init__(self, limit: int | None = 10) -> None:
        """`limit`: clips of a set; one costs about a CPU second."""
        super().__init__()
        self.limit = limit

    @property
    def model(self) -> str:
        return "speechmos dnsmos ovrl"

    @property
    def version(self) -> str:
        return installed("speechmos")

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        from speechmos import dnsmos  # onnxruntime and librosa: only when it is asked for

        audio = at_rate(audio, rate)
        if len(audio) < RATE // 20 or not torch.any(audio):
            return float("nan")
        return float(dnsmos.run(audio.clamp(-1, 1).numpy(), RATE)["ovrl_mos"])
