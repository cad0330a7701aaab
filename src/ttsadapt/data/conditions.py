"""How a recording was made: noise, a room, a telephone line, a hand on the volume. Studio speech in, the same speech as recorded out.

No sample moves: phones stay where they are. A room's direct sound arrives at once; its reverberation falls into the phones that follow, and
what would ring on after the last sample is cut off.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import uniform_filter1d

from ttsadapt.errors import ConfigError

Audio = NDArray[np.float32]

_PEAK = 0.98
_PIVOT = 1000.0
"""Hz, where a slope changes nothing"""
_LOWEST = 50.0
"""Hz, below which the spectrum of a noise is flat"""


class Condition(ABC):
    """Keeps plain numbers only: it is sent to the processes that render, and is part of a corpus's fingerprint."""

    def __call__(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        """(samples,) in [-1, 1] -> (samples,): the same samples as they would have been recorded, nothing beyond full scale."""
        heard = self.recorded(audio, rate, generator)
        return (heard / max(1.0, float(np.abs(heard).max(initial=0)) / _PEAK)).astype(np.float32)

    @abstractmethod
    def recorded(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio: ...

    def settings(self) -> dict[str, Any]:
        """For hashing."""
        return {"condition": type(self).__name__} | vars(self)


class Clean(Condition):
    """As it was rendered."""

    def __call__(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        return audio

    def recorded(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        return audio


class Noise(Condition):
    """The same noise in every recording, at the same distance from the speech."""

    def __init__(self, snr: float = 15.0, slope: float = 0.0) -> None:
        """`snr`: dB below the speech, pauses not counted. `slope`: dB per octave; 0 is white noise, -3 pink."""
        self.snr, self.slope = float(snr), float(slope)

    def recorded(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        return noisy(audio, rate, self.snr, self.slope, generator)


class Reverberation(Condition):
    """One room for every recording: a synthetic impulse response, noise that decays exponentially after the direct sound (Polack 1988)."""

    def __init__(self, rt60: float = 0.5, direct: float = 3.0, room: int = 0) -> None:
        """`rt60`: seconds in which the room's sound falls by 60 dB. `direct`: dB of the direct sound above all of the room's.

        `room`: which room of this kind.
        """
        self.rt60, self.direct, self.room = _positive("rt60", rt60), float(direct), room

    def recorded(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        return reverberant(audio, rate, self.rt60, self.direct, np.random.default_rng(self.room))


class Diverse(Condition):
    """Another place, microphone and distance for every recording: all is drawn anew from ranges, uniformly."""

    def __init__(
        self,
        snr: Sequence[float] = (12.0, 45.0),
        slope: Sequence[float] = (-6.0, 0.0),
        rt60: Sequence[float] = (0.1, 0.6),
        direct: Sequence[float] = (3.0, 20.0),
        level: Sequence[float] = (-14.0, 4.0),
        bandwidth: Sequence[float] = (2500.0, 8000.0),
    ) -> None:
        """Lowest and highest: `snr`, `slope` as in `Noise`, `rt60`, `direct` as in `Reverberation`; `level`: gain in dB; `bandwidth`: Hz,
        above which nothing was recorded."""
        self.snr, self.slope, self.direct, self.level = (
            _range(name, value) for name, value in (("snr", snr), ("slope", slope), ("direct", direct), ("level", level))
        )
        self.rt60, self.bandwidth = _range("rt60", rt60, 1e-3), _range("bandwidth", bandwidth, 100.0)

    def recorded(self, audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
        drawn = {name: float(generator.uniform(*limits)) for name, limits in sorted(vars(self).items())}
        heard = reverberant(audio, rate, drawn["rt60"], drawn["direct"], generator)
        heard = noisy(heard, rate, drawn["snr"], drawn["slope"], generator)
        return narrowed(heard, rate, drawn["bandwidth"]) * np.float32(10 ** (drawn["level"] / 20))


def noisy(audio: Audio, rate: int, snr: float, slope: float, generator: np.random.Generator) -> Audio:
    """(samples,) with a Gaussian noise of `slope` dB per octave added, `snr` dB below the speech."""
    size = next_fast_len(len(audio), real=True)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / rate), _LOWEST) / _PIVOT)
    spectrum = rfft(generator.standard_normal(size, dtype=np.float32)) * (10 ** (slope / 20 * octaves)).astype(np.float32)
    noise = irfft(spectrum, size)[: len(audio)]
    return audio + noise * np.float32(speech_level(audio, rate) * 10 ** (-snr / 20) / max(_level(noise), 1e-9))


def reverberant(audio: Audio, rate: int, rt60: float, direct: float, generator: np.random.Generator) -> Audio:
    """(samples,) in a room, at the level that its speech had."""
    tail = generator.standard_normal(max(round(rt60 * rate), 1), dtype=np.float32)
    tail *= (10 ** (-3 * np.arange(1, 1 + len(tail)) / (rt60 * rate))).astype(np.float32)  # 60 dB in rt60 seconds
    tail *= np.float32(10 ** (-direct / 20) / max(float(np.sqrt(np.square(tail).sum())), 1e-9))
    response = np.r_[np.float32(1), tail]
    size = next_fast_len(len(audio) + len(response), real=True)
    heard = irfft(rfft(audio, size) * rfft(response, size), size)[: len(audio)]
    return heard * np.float32(speech_level(audio, rate) / max(speech_level(heard, rate), 1e-9))


def narrowed(audio: Audio, rate: int, bandwidth: float) -> Audio:
    """(samples,) without what lies above `bandwidth` Hz: 8th order, zero phase."""
    size = next_fast_len(len(audio) + rate // 20, real=True)
    gain = 1 / np.sqrt(1 + (np.fft.rfftfreq(size, 1 / rate) / bandwidth) ** 16)
    return irfft(rfft(audio, size) * gain.astype(np.float32), size)[: len(audio)]


def speech_level(audio: Audio, rate: int) -> float:
    """Root mean square of what is louder than a tenth of the loudest 10 ms: pauses do not count."""
    envelope = uniform_filter1d(np.abs(audio), max(rate // 100, 1), mode="constant")
    return _level(audio[envelope > 0.1 * envelope.max()]) if len(audio) and envelope.max() > 0 else 0.0


def _level(audio: Audio) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if len(audio) else 0.0


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ConfigError(f"{name} is {value}: give seconds above 0")
    return float(value)


def _range(name: str, limits: Sequence[float], least: float = -np.inf) -> tuple[float, float]:
    values = tuple(float(v) for v in limits)
    if len(values) != 2 or not least <= values[0] <= values[1]:
        above = f", {least:g} or more" if np.isfinite(least) else ""
        raise ConfigError(f"{name} is {list(values)}: give the lowest and the highest value{above}")
    return values[0], values[1]
