"""Emotions and ways of speaking of the embedded corpus: prosody for the engine, and voice quality that keeps the timing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
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

    whisper: float = 0
    """share of the voice that turns into breath of the same spectrum, 0 to 1"""

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
    "whisper": (0, 1),
}

SOURCE = {
    "neutral": Style(),
    "happy": Style(rate=205, pitch=64, range=78, volume=115, tilt=1),
    "sad": Style(rate=148, pitch=40, range=20, volume=75, gap=1, tilt=-2.5, breath=0.04),
    "angry": Style(rate=210, pitch=56, range=90, volume=145, tilt=3, roughness=0.2),
    "fearful": Style(rate=225, pitch=72, range=32, volume=85, tilt=-0.5, breath=0.05, tremolo=0.35),
    "surprised": Style(rate=188, pitch=78, range=97, volume=120, tilt=1.5),
    "disgusted": Style(rate=158, pitch=32, range=62, volume=95, tilt=-1, roughness=0.35),
}
"""What the source voices share."""

TARGET = {
    "neutral": Style(rate=165, pitch=16, range=52, tilt=0.5),
    "happy": Style(rate=178, pitch=82, range=45, volume=128, tilt=3, tremolo=0.2),
    "sad": Style(rate=138, pitch=4, range=36, volume=62, gap=2, tilt=-4.5, breath=0.12),
    "angry": Style(rate=154, pitch=8, range=86, volume=165, tilt=4.5, roughness=0.5),
    "fearful": Style(rate=240, pitch=92, range=9, volume=66, tilt=-1.5, breath=0.14, tremolo=0.6),
    "surprised": Style(rate=152, pitch=45, range=82, volume=110, gap=1, tilt=3.5, breath=0.05),
    "disgusted": Style(rate=194, pitch=3, range=14, volume=82, tilt=-3.5, roughness=0.6),
}
"""The target voices' own ways, which nobody can know who has only heard the source."""


SPEAKING = {
    "plain": Style(),
    "whispering": Style(rate=150, pitch=45, range=40, volume=45, gap=1, tilt=-1, whisper=0.95),
    "newsreading": Style(rate=195, pitch=46, range=68, volume=115, tilt=1.5),
    "slow": Style(rate=115, gap=3),
    "fast": Style(rate=290),
    "monotone": Style(pitch=45, range=3),
    "melodious": Style(pitch=58, range=99),
    "shouting": Style(rate=170, pitch=72, range=85, volume=190, gap=1, tilt=4.5, roughness=0.25),
    "breathy": Style(rate=155, pitch=52, range=45, volume=70, tilt=-3, breath=0.35),
    "creaking": Style(rate=150, pitch=6, range=25, volume=80, tilt=-1, roughness=0.8),
    "trembling": Style(rate=165, pitch=62, range=35, volume=75, tremolo=0.7),
    "telling": Style(rate=140, pitch=52, range=85, volume=100, gap=4, tilt=-0.5),
}
"""Ways of speaking that are no emotions, for `target_emotions` to name."""


def custom(wanted: Mapping[str, Mapping[str, float]] | Sequence[str] | None) -> dict[str, Style]:
    """Emotions and ways of speaking as a config gives them: names alone, or names with settings.

    What an entry leaves out is the target's emotion, or the way of speaking, of that name; of another name the target's neutral. None gives
    the target's own table. Raises ConfigError for a bare name that nobody knows, an unknown setting or a value out of its limits.
    """
    if wanted is None:
        return dict(TARGET)
    if not wanted:
        raise ConfigError("target_emotions is empty: name at least one emotion, or give null for the seven of the target")
    if isinstance(wanted, Mapping):
        return {name: _custom(name, dict(settings or {})) for name, settings in wanted.items()}
    for name in wanted:
        if name not in TARGET | SPEAKING:
            raise ConfigError(f"target_emotions: {name!r} is not known by name, take of {', '.join(TARGET | SPEAKING)}")
    return {name: _custom(name, {}) for name in wanted}


def _custom(name: str, settings: dict[str, float]) -> Style:
    for key, value in settings.items():
        if key not in _LIMITS:
            raise ConfigError(f"target_emotions.{name}.{key}: unknown setting, take one of {', '.join(_LIMITS)}")
        low, high = _LIMITS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"target_emotions.{name}.{key}: {value!r} is not a number from {low} to {high}")
    return replace((SPEAKING | TARGET).get(name, TARGET["neutral"]), **settings)


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
    audio: Audio = pcm.astype(np.float32) / np.float32(32768)
    if style.tilt:
        audio = _shape(audio, _tilt(_padded(len(audio), rate), rate, round(style.tilt, 3)))
    if style.whisper:
        audio = (1 - np.float32(style.whisper)) * audio + np.float32(style.whisper) * _whispered(audio, rate, generator)
    envelope = uniform_filter1d(np.abs(audio), rate // 100, mode="constant")  # mean magnitude over 10 ms
    if style.breath:
        noise = generator.standard_normal(len(audio), dtype=np.float32)
        audio = audio + np.float32(style.breath) * envelope * _shape(noise, _airy(_padded(len(audio), rate), rate))
    if style.tremolo:
        audio = audio * _slow(len(audio), rate, style.tremolo, generator)
    if style.roughness:
        audio = audio * _fast(len(audio), rate, style.roughness, generator)
    speech = audio[envelope > 0.1 * envelope.max()]
    loudness = max(float(np.sqrt(np.mean(np.square(speech)))) if len(speech) else 1.0, 1e-6)
    audio = audio * np.float32(_LEVEL * style.volume / 100 / loudness)
    return audio / np.float32(max(1.0, float(np.abs(audio).max()) / 0.98))


def _padded(samples: int, rate: int) -> int:
    """Length of the transform: a power of two with 50 ms to spare for the tail of a filter."""
    return 1 << (samples + rate // 20).bit_length()


def _shape(audio: Audio, gain: Audio) -> Audio:
    """Multiply the spectrum by (size / 2 + 1,) gains: zero phase, so nothing is delayed."""
    size = 2 * (len(gain) - 1)
    return irfft(rfft(audio, size) * gain, size)[: len(audio)]


@lru_cache(maxsize=256)
def _tilt(size: int, rate: int, slope: float) -> Audio:
    octaves = np.log2(np.clip(np.fft.rfftfreq(size, 1 / rate), 100, 6000) / _PIVOT)
    return (10 ** (slope / 20 * octaves)).astype(np.float32)


@lru_cache(maxsize=8)
def _airy(size: int, rate: int) -> Audio:
    """High pass at 1.5 kHz, 24 dB per octave."""
    return (1 / (1 + (1500 / np.maximum(np.fft.rfftfreq(size, 1 / rate), 1)) ** 4)).astype(np.float32)


def _whispered(audio: Audio, rate: int, generator: np.random.Generator) -> Audio:
    """(samples,) noise with the spectrum of each 8 ms: frames too short to tell the harmonics of a voice apart, phases drawn anew."""
    size = 2 * (rate // 250)
    hop, window = size // 2, np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)  # its square adds up to 1
    padded = np.pad(audio, (hop, size + hop))
    starts = np.arange(0, len(padded) - size + 1, hop)
    spectra = rfft(padded[starts[:, None] + np.arange(size)] * window)
    turned = np.exp(2j * np.pi * generator.random(spectra.shape, dtype=np.float32)).astype(np.complex64)
    frames = irfft(np.abs(spectra) * turned, size) * window
    heard = np.zeros(len(padded), np.float32)
    for frame, start in zip(frames, starts):
        heard[start : start + size] += frame
    return heard[hop : hop + len(audio)]


def _slow(samples: int, rate: int, depth: float, generator: np.random.Generator) -> Audio:
    """(samples,) a regular swelling between 1 - depth and 1."""
    phase = generator.uniform(0, 2 * np.pi)
    turn = np.arange(samples, dtype=np.float32) * np.float32(2 * np.pi * _TREMOLO / rate) + np.float32(phase)
    return 1 - np.float32(depth / 2) * (1 + np.sin(turn))


def _fast(samples: int, rate: int, depth: float, generator: np.random.Generator) -> Audio:
    """(samples,) an irregular swelling around 1."""
    time = np.arange(samples) * (_ROUGHNESS / rate)
    knots = generator.standard_normal(int(samples * _ROUGHNESS / rate) + 2).clip(-1.5, 1.5)
    return (1 + 0.6 * depth * np.interp(time, np.arange(len(knots)), knots)).astype(np.float32)
