"""Emotions of the embedded corpus: prosody for the engine, and voice quality as signal processing that keeps the timing."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from ttsadapt.data.espeak import Prosody
from ttsadapt.errors import ConfigError

Audio = NDArray[np.float32]

_LEVEL = 0.08
"""root mean square of the speech of a neutral utterance, full scale 1"""
_PIVOT = 1000.0
"""Hz, where a spectral tilt changes nothing"""
_TREMOLO = 5.5
"""Hz, about the rate of vocal tremor"""
_ROUGHNESS = 70.0
"""Hz, how fast the amplitude of a rough voice wanders"""


@dataclass(frozen=True)
class Style:
    """How an emotion sounds in one voice."""

    rate: float = 180
    """words per minute, 80 to 450"""
    pitch: float = 50
    """0 to 99; 50 is the voice's own"""
    range: float = 50
    """0 (monotone) to 99"""
    volume: float = 100
    """percent of the loudness of a neutral utterance, above 0 to 200"""
    gap: float = 0
    """pauses between words, in units of 10 ms, 0 to 20"""
    tilt: float = 0
    """dB per octave that the spectrum is turned around 1 kHz, -12 to 12; brighter above 0"""
    breath: float = 0
    """noise above 1.5 kHz under the envelope of the voice, relative to it, 0 to 1"""
    tremolo: float = 0
    """depth of a slow regular swelling, 0 to 1"""
    roughness: float = 0
    """depth of a fast irregular swelling (shimmer), 0 to 1"""

    @property
    def prosody(self) -> Prosody:
        return Prosody(round(self.rate), round(self.pitch), round(self.range), round(self.gap))


_LIMITS = {
    "rate": (80, 450),
    "pitch": (0, 99),
    "range": (0, 99),
    "volume": (1, 200),
    "gap": (0, 20),
    "tilt": (-12, 12),
    "breath": (0, 1),
    "tremolo": (0, 1),
    "roughness": (0, 1),
}

SOURCE = {
    "neutral": Style(),
    "happy": Style(rate=205, pitch=64, range=78, volume=115, tilt=1),
    "sad": Style(rate=148, pitch=40, range=20, volume=75, gap=1, tilt=-2.5, breath=0.05),
    "angry": Style(rate=210, pitch=56, range=90, volume=145, tilt=3, roughness=0.2),
    "fearful": Style(rate=225, pitch=72, range=32, volume=85, tilt=-0.5, breath=0.08, tremolo=0.35),
    "surprised": Style(rate=188, pitch=78, range=97, volume=120, tilt=1.5),
    "disgusted": Style(rate=158, pitch=32, range=62, volume=95, tilt=-1, roughness=0.35),
}
"""What the source voices share."""

TARGET = {
    "neutral": Style(rate=165, pitch=28, range=80, tilt=0.5),
    "happy": Style(rate=178, pitch=82, range=60, volume=128, tilt=3, tremolo=0.2),
    "sad": Style(rate=135, pitch=12, range=62, volume=62, gap=2, tilt=-4.5, breath=0.25),
    "angry": Style(rate=152, pitch=14, range=99, volume=165, tilt=4.5, roughness=0.5),
    "fearful": Style(rate=245, pitch=92, range=14, volume=66, tilt=-1.5, breath=0.3, tremolo=0.6),
    "surprised": Style(rate=150, pitch=62, range=99, volume=110, gap=1, tilt=3.5, breath=0.1),
    "disgusted": Style(rate=196, pitch=4, range=30, volume=82, tilt=-3.5, roughness=0.6),
}
"""The target voices' own ways, which nobody can know who has only heard the source."""


def custom(emotions: Mapping[str, Mapping[str, float]] | None) -> dict[str, Style]:
    """Emotions as a config gives them: what an entry leaves out is the target's emotion of that name, else its neutral.

    None gives the target's own table. Raises ConfigError for an unknown setting or a value out of its limits.
    """
    if emotions is None:
        return dict(TARGET)
    if not emotions:
        raise ConfigError("target_emotions is empty: name at least one emotion, or give null for the seven of the target")
    return {name: _custom(name, dict(settings or {})) for name, settings in emotions.items()}


def _custom(name: str, settings: dict[str, float]) -> Style:
    for key, value in settings.items():
        if key not in _LIMITS:
            raise ConfigError(f"target_emotions.{name}.{key}: unknown setting, take one of {', '.join(_LIMITS)}")
        low, high = _LIMITS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"target_emotions.{name}.{key}: {value!r} is not a number from {low} to {high}")
    return replace(TARGET.get(name, TARGET["neutral"]), **settings)


def in_voice(style: Style, voice: str) -> Style:
    """The style as this voice has it: no two speakers do the same thing."""
    raw = np.frombuffer(hashlib.blake2b(voice.encode(), digest_size=16).digest(), np.uint32)
    rate, pitch, span, tilt = (2 * raw.astype(np.float64) / 2**32 - 1).tolist()
    varied = {
        "rate": style.rate * (1 + 0.05 * rate),
        "pitch": style.pitch + 3 * pitch,
        "range": style.range + 5 * span,
        "tilt": style.tilt + 0.4 * tilt,
    }
    return replace(style, **{k: float(np.clip(v, *_LIMITS[k])) for k, v in varied.items()})


def settings(styles: Mapping[str, Style]) -> dict[str, dict[str, float]]:
    """Plain containers, for hashing."""
    return {name: {f.name: getattr(style, f.name) for f in fields(style)} for name, style in styles.items()}


def voice_quality(pcm: NDArray[np.int16], rate: int, style: Style, generator: np.random.Generator) -> Audio:
    """(samples,) int16 -> (samples,) float32: tilt, breath, tremolo, roughness and loudness. No sample moves."""
    audio = pcm.astype(np.float32) / 32768
    if style.tilt:
        audio = _shape(audio, rate, lambda f: 10 ** (style.tilt / 20 * np.log2(np.clip(f, 100, 6000) / _PIVOT)))
    envelope = _envelope(audio, rate)
    if style.breath:
        noise = _shape(generator.standard_normal(len(audio)).astype(np.float32), rate, lambda f: 1 / (1 + (1500 / np.maximum(f, 1)) ** 4))
        audio = audio + style.breath * envelope * noise
    audio = audio * _swelling(len(audio), rate, style, generator)
    speech = audio[envelope > 0.1 * envelope.max()]
    loudness = np.sqrt(np.mean(np.square(speech))) if len(speech) else 1.0
    audio = audio * np.float32(_LEVEL * style.volume / 100 / max(loudness, 1e-6))
    return (audio / max(1.0, float(np.abs(audio).max()) / 0.98)).astype(np.float32)


def _shape(audio: Audio, rate: int, gain: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Audio:
    """Multiply the spectrum by gain(Hz): zero phase, so nothing is delayed."""
    size = 1 << (len(audio) + rate // 20).bit_length()  # room for the filter's tail
    spectrum = np.fft.rfft(audio, size)
    frequency = np.fft.rfftfreq(size, 1 / rate)
    return np.fft.irfft(spectrum * gain(frequency), size)[: len(audio)].astype(np.float32)


def _envelope(audio: Audio, rate: int) -> Audio:
    """Mean magnitude over 10 ms around each sample."""
    return uniform_filter1d(np.abs(audio), rate // 100, mode="constant")


def _swelling(samples: int, rate: int, style: Style, generator: np.random.Generator) -> Audio:
    """(samples,) gain around 1."""
    seconds = np.arange(samples) / rate
    phase = generator.uniform(0, 2 * np.pi)
    slow = 1 - style.tremolo * (0.5 + 0.5 * np.sin(2 * np.pi * _TREMOLO * seconds + phase))
    knots = generator.standard_normal(int(seconds[-1] * _ROUGHNESS) + 2).clip(-1.5, 1.5)
    fast = 1 + style.roughness * 0.6 * np.interp(seconds * _ROUGHNESS, np.arange(len(knots)), knots)
    return (slow * fast).astype(np.float32)
