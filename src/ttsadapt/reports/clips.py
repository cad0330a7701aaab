"""The listening part: which utterances, their audio small enough for one file, their mel pictures."""

import base64
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from ttsadapt.bars import Bar
from ttsadapt.errors import DataError
from ttsadapt.reports.study import Spoken
from ttsadapt.reports.systems import System, Systems

PER_SET = {"target": 4, "source": 3, "unseen": 2, "ood": 2}
BUDGET = 5_500_000
"""bytes of audio and pictures, as they stand in the page"""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MELS, HOP, WINDOW, FLOOR = 64, 0.0125, 0.05, -65.0
"""bands; seconds; seconds; dB below the reference's peak that is drawn black"""


@dataclass(frozen=True)
class Clip:
    """One system's rendering of one utterance."""

    system: System
    audio: str
    """data URI"""
    picture: str
    """data URI: the recording's mel above, this one's below, on one time axis; the recording's own alone"""
    seconds: float
    paired: bool
    mel: np.ndarray
    """(MELS, frames) dB below the recording's peak"""


@dataclass(frozen=True)
class Listening:
    """One utterance, by every system that spoke it."""

    spoken: Spoken
    clips: list[Clip]


def listening(systems: Systems) -> list[Listening]:
    """The same utterances for every system, spread over emotions, up to the page's budget."""
    spent = 0
    heard: list[Listening] = []
    chosen = choose(systems)
    for spoken in Bar(chosen, "audio for the page", unit="utt", leave=False, disable=len(chosen) < 2):
        clips = _clips(systems, spoken)
        size = sum(len(c.audio) + len(c.picture) for c in clips)
        if heard and spent + size > BUDGET:
            break
        spent += size
        heard.append(Listening(spoken, clips))
    rank = {s: i for i, s in enumerate(systems.study.sets)}
    return sorted(heard, key=lambda h: rank.get(h.spoken.set, len(rank)))


def choose(systems: Systems) -> list[Spoken]:
    """Taken in turn from each set, so that a full budget still leaves some of each."""
    queues = []
    for set_ in systems.study.sets:
        everyone = [s for (kind, _), s in sorted(systems.study.spoken.items()) if kind == set_]
        speaking = [s for s in systems if any(s.wav(set_, u.id) for u in everyone)]
        complete = [u for u in everyone if speaking and all(s.wav(set_, u.id) for s in speaking)]
        queues.append(across_emotions(complete)[: PER_SET.get(set_, 2)])
    longest = max(map(len, queues), default=0)
    return [q[i] for i in range(longest) for q in queues if i < len(q)]


def across_emotions(utterances: Sequence[Spoken]) -> list[Spoken]:
    """One of each emotion, then a second of each, and so on, of different speakers where it can be."""
    seen: dict[str, int] = defaultdict(int)
    speakers: dict[str, int] = defaultdict(int)
    turns = []
    for u in utterances:
        turns.append((seen[u.emotion], speakers[u.speaker], u.emotion, u.id, u))
        seen[u.emotion] += 1
        speakers[u.speaker] += 1
    return [t[-1] for t in sorted(turns, key=lambda t: t[:-1])]


def _clips(systems: Systems, spoken: Spoken) -> list[Clip]:
    paths = {s: p for s in systems if (p := s.wav(spoken.set, spoken.id))}
    with ThreadPoolExecutor(2) as pool:  # the encoder and the FFT leave Python's lock
        loaded = dict(zip(paths, pool.map(_load, paths.values())))
        mels = dict(zip(paths, pool.map(lambda pair: mel(*pair), loaded.values())))
        audio = dict(zip(paths, pool.map(lambda pair: encode(*pair), loaded.values())))
    recording = next((s for s in paths if s.kind == "ceiling"), None)
    peak = max(m.max() for m in ([mels[recording]] if recording else mels.values()))
    mels = {s: m - peak for s, m in mels.items()}
    frames = max(m.shape[1] for m in mels.values())
    clips = []
    for system, (samples, rate) in loaded.items():
        pair = [mels[recording]] if recording and system is not recording else []
        picture = paint([*pair, mels[system]], frames)
        clips.append(Clip(system, audio[system], picture, len(samples) / rate, bool(pair), mels[system]))
    return clips


def _load(path: Path) -> tuple[np.ndarray, int]:
    """((samples,) float32 mono, rate)."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} cannot be read as audio ({error.error_string}): synthesise the run again") from error
    if len(samples) == 0:
        raise DataError(f"{path} holds no sample: synthesise the run again")
    return np.nan_to_num(samples.mean(1)), rate


def encode(samples: np.ndarray, rate: int) -> str:
    """MP3, which every browser plays, as a data URI; Ogg Vorbis where MP3 does not know the rate."""
    if rate in MP3_RATES and "MP3" in soundfile.available_formats():
        kind, mime, quality = "MP3", "mpeg", {"compression_level": 0.4}
    else:
        kind, mime, quality = "OGG", "ogg", {"compression_level": 0.4}
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), rate, format=kind, **quality)
    return _uri(f"audio/{mime}", stream.getvalue())


def mel(samples: np.ndarray, rate: int) -> np.ndarray:
    """(MELS, frames) power in dB, Hann window of 50 ms, 12.5 ms hop, triangles evenly spaced in mel up to 8 kHz: for the eye."""
    hop, window = round(HOP * rate), round(WINDOW * rate)
    size = 1 << math.ceil(math.log2(window))
    padded = np.pad(samples, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), size)) ** 2
    return 10 * np.log10(_triangles(rate, size) @ power.T + 1e-10)


def _triangles(rate: int, size: int) -> np.ndarray:
    """(MELS, size // 2 + 1), on the scale 2595 log10(1 + f / 700); each band at least one bin wide."""
    top = 2595 * math.log10(1 + min(8000, rate / 2) / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    step = rate / size
    rising = (bins - low) / np.maximum(centre - low, step)
    falling = (high - bins) / np.maximum(high - centre, step)
    return np.maximum(0, np.minimum(rising, falling))


def paint(mels: Sequence[np.ndarray], frames: int) -> str:
    """Mel spectrograms in dB below the peak, one above the other on `frames` frames, as a WebP data URI."""
    level = np.clip(1 - stack(mels, frames) / FLOOR, 0, 1)
    colours = (colormaps["magma"](level)[..., :3] * 255).astype(np.uint8)
    if len(mels) > 1:
        colours[MELS - 1 : MELS + 1] = 128
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "WEBP", quality=72, method=2)
    return _uri("image/webp", stream.getvalue())


def stack(mels: Sequence[np.ndarray], frames: int = 0) -> np.ndarray:
    """(len(mels) * MELS, frames) one above the other, low bands at the bottom of each, silence after the end."""
    frames = max(frames, *(m.shape[1] for m in mels))
    image = np.full((len(mels), MELS, frames), FLOOR)
    for row, values in zip(image, mels):
        row[:, : values.shape[1]] = values[::-1]
    return image.reshape(-1, frames)


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
