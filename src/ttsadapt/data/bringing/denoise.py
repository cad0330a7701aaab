"""Noise taken out of recordings on their way in."""

import importlib.util
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttsadapt.errors import ConfigError


@dataclass(frozen=True)
class SpectralGate:
    """What in a frequency stays below a threshold, which is estimated from the recording itself, is turned down (package noisereduce).

    It takes something of the voice, too: of speech 20 dB above white noise more than there is noise, whichever the setting.
    """

    stationary: bool = False
    """one threshold a frequency; False: it follows a noise that changes"""
    reduction: float = 0.9
    """share of the noise that is taken away, 0 to 1"""

    def __post_init__(self) -> None:
        if not 0 < self.reduction <= 1:
            raise ConfigError(f"denoise.reduction is {self.reduction}: give more than 0, at most 1")
        if importlib.util.find_spec("noisereduce") is None:
            raise ConfigError('denoise=spectral_gate needs the package noisereduce: pip install "ttsadapt[denoise]", or denoise: null')

    def __call__(self, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """(samples,) -> as many."""
        from noisereduce import reduce_noise

        return reduce_noise(y=samples, sr=rate, stationary=self.stationary, prop_decrease=self.reduction).astype(np.float32)
