"""Clips whose answer is known beforehand: recordings made worse, and recordings of somebody or something else."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ttsadapt.listening.base import Clip
from ttsadapt.listening.pool import Pool
from ttsadapt.reports.study import Spoken


class Anchor(ABC):
    """Something that a listener must find bad."""

    @abstractmethod
    def clip(self, pool: Pool, spoken: Spoken) -> Clip | None:
        """None when the study has nothing of the kind."""


class _Degraded(Anchor):
    """The sentence's own recording, made worse; without one, the first system's clip."""

    @abstractmethod
    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """(samples,) at `rate` -> as many, worse."""

    def clip(self, pool: Pool, spoken: Spoken) -> Clip | None:
        path = pool.recording(spoken) or pool.wav(pool.labels[0], spoken)
        return Clip("anchor", path, self)


@dataclass(frozen=True)
class LowPass(_Degraded):
    """Nothing above `cutoff` Hz: the low anchor of ITU-R BS.1534 has 3500. Too mild for speech that holds little above."""

    cutoff: float

    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        from scipy.signal import butter, sosfiltfilt

        if self.cutoff >= rate / 2:
            return audio
        return sosfiltfilt(butter(8, self.cutoff, "lowpass", fs=rate, output="sos"), audio).astype(np.float32)


@dataclass(frozen=True)
class ModulatedNoise(_Degraded):
    """Noise that follows the speech, `q` dB below it: the modulated noise reference unit of ITU-T P.810 at its Q, x (1 + 10^(-Q/20) N)."""

    q: float

    def __call__(self, audio: np.ndarray, rate: int) -> np.ndarray:
        noise = np.random.default_rng(len(audio)).standard_normal(len(audio)).astype(np.float32)
        return audio * (1 + 10 ** (-self.q / 20) * noise)


@dataclass(frozen=True)
class OtherSpeaker(Anchor):
    """A recording of another speaker: what a test of speaker similarity must tell apart."""

    def clip(self, pool: Pool, spoken: Spoken) -> Clip | None:
        others = [path for s, path in pool.recorded() if s.speaker and spoken.speaker and s.speaker != spoken.speaker]
        return Clip("anchor", others[len(spoken.text) % len(others)], copy=1) if others else None


@dataclass(frozen=True)
class OtherEmotion(Anchor):
    """A recording with another emotion, of the same speaker where there is one."""

    def clip(self, pool: Pool, spoken: Spoken) -> Clip | None:
        others = [(s, path) for s, path in pool.recorded() if s.emotion and spoken.emotion and s.emotion != spoken.emotion]
        same = [pair for pair in others if pair[0].speaker == spoken.speaker] or others
        return Clip("anchor", same[len(spoken.text) % len(same)][1], copy=1) if same else None
