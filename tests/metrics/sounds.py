"""Speech-like sounds without a speech engine: glides of harmonics through formants."""

from pathlib import Path

import numpy as np

from ttsadapt.data.pcm import write_wav
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.metrics.signal import RATE

FORMANTS = {"a": (800.0, 1200.0), "i": (300.0, 2300.0), "u": (350.0, 800.0)}


def voice(f0: float, phones: str = "aiua", seconds: float = 0.25, silence: float = 0.1, brightness: float = 1.0) -> np.ndarray:
    """(samples,): each phone a quarter of a second of a pulse train through two resonances, F0 gliding by a tenth."""
    time = np.arange(int(seconds * len(phones) * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(f0 * (1 + 0.1 * np.sin(2 * np.pi * 1.5 * time))) / RATE
    audio = np.zeros_like(time)
    for harmonic in range(1, int(7000 / (1.1 * f0))):
        hertz = harmonic * f0
        gain = np.concatenate(
            [np.full(int(seconds * RATE), sum(1 / (1 + ((hertz - f * brightness) / 120) ** 2) for f in FORMANTS[p])) for p in phones]
        )
        audio += gain[: len(time)] * np.sin(harmonic * phase)
    quiet = np.zeros(int(silence * RATE))
    return np.concatenate([quiet, 0.2 * audio / np.abs(audio).max(), quiet]).astype(np.float32)


def said(folder: Path, name: str, audio: np.ndarray, **about) -> Utterance:
    folder.mkdir(parents=True, exist_ok=True)
    write_wav(folder / f"{name}.wav", audio, RATE)
    about = {"text": name, "speaker": "one", "phones": ()} | about
    return Utterance(id=name, audio=folder / f"{name}.wav", duration=len(audio) / RATE, **about)


def phones_at(symbols: str, seconds: float = 0.25, silence: float = 0.1) -> tuple[Phone, ...]:
    edges = [0.0, silence, *(silence + seconds * (i + 1) for i in range(len(symbols))), 2 * silence + seconds * len(symbols)]
    return tuple(Phone(s, a, b) for s, a, b in zip(["_", *(f"ˈ{s}" for s in symbols), "_"], edges, edges[1:]))
