"""Does it sound clean: DNS-MOS (Reddy et al. 2022, P.835; P.808: Reddy et al. 2021), the networks that the speechmos wheel carries."""

from functools import lru_cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError
from ttsadapt.metrics.base import SILENT, UtteranceMetric
from ttsadapt.metrics.signal import RATE, at_rate

_PARTS = ("ovrl", "sig", "bak", "p808")


class DnsMos(UtteranceMetric):
    """1 to 5: overall quality, the speech alone, the background alone, or overall by another network. NaN for silence.

    Made to rank noise suppressors: it says little about prosody. A clip below 9 s is repeated until it fills the window.
    """

    name: ClassVar[str] = "dnsmos"
    unit: ClassVar[str] = "MOS"
    bounds: ClassVar[tuple[float, float]] = (0, 5)
    better: ClassVar[str] = "higher"

    def __init__(self, limit: int | None = 10, part: Literal["ovrl", "sig", "bak", "p808"] = "ovrl") -> None:
        """`limit`: clips of a set; one costs about a CPU second, however many parts are asked for."""
        super().__init__()
        if part not in _PARTS:
            raise ConfigError(f"metric.dnsmos.part={part}: choose of {', '.join(_PARTS)}")
        self.limit, self.part = limit, part

    @property
    def model(self) -> str:
        return f"speechmos dnsmos {self.part}"

    @property
    def revision(self) -> str:
        return installed("speechmos")

    def score(self, audio: Tensor, rate: int, utterance: Utterance) -> float:
        audio = at_rate(audio, rate)
        if len(audio) < RATE // 20 or not torch.any(audio):
            return SILENT
        return float(_heard(audio.clamp(-1, 1).numpy().tobytes())[f"{self.part}_mos"])


@lru_cache(maxsize=8)
def _heard(samples: bytes) -> dict[str, Any]:
    """Every part at once, of float32 samples at RATE."""
    return _network()(np.frombuffer(samples, np.float32), RATE, False)


@lru_cache(maxsize=1)
def _network() -> Any:
    """speechmos's own class over its own files. With one thread: sums over several come out otherwise in the last digits."""
    import onnxruntime
    from speechmos import dnsmos  # with librosa: only when it is asked for

    def alone(name: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(Path(dnsmos.__file__).parent / "dnsmos_models" / name, options)

    network = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)  # its constructor opens both files with as many threads as there are cores
    network.onnx_sess, network.p808_onnx_sess = alone("sig_bak_ovr.onnx"), alone("model_v8.onnx")
    return network
