"""What is measured on a recording and kept under a hash of its contents, so that a second look at the data costs nothing."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import UserError
from ttsadapt.files import content_hash, digest, read_json, replacing, write_json
from ttsadapt.metrics import world
from ttsadapt.metrics.dnsmos import DnsMos
from ttsadapt.metrics.levels import HOP, levels
from ttsadapt.metrics.signal import RATE, recording, trimmed
from ttsadapt.metrics.wada import wada_snr
from ttsadapt.text.phones import phonemize, split_stress
from ttsadapt.text.syllables import syllables

Array = NDArray[np.float64]
REVISION = 1
"""raise it when a measurement would come out differently"""


@dataclass(frozen=True)
class Clip:
    """One recording, silence at its ends left out."""

    level: Array
    """(T,) dB of full scale, a frame every 10 ms"""
    f0: Array
    """(voiced frames,) Hz"""
    snr: float
    """WADA-SNR in dB, NaN for silence"""

    @property
    def seconds(self) -> float:
        return len(self.level) * HOP


def clip(utterance: Utterance, cache: Path) -> Clip:
    """DataError when the recording cannot be used."""
    key = content_hash(utterance.audio)
    file = cache / "diversity" / f"{digest([key, REVISION, world.REVISION])}.safetensors"
    if not file.is_file():
        audio = trimmed(recording(utterance.audio))
        f0 = world.of_recording(utterance.audio, cache).f0
        found = {"level": levels(audio), "f0": f0[f0 > 0], "snr": np.array([wada_snr(audio.numpy())])}
        with replacing(file) as temporary:
            save_file({name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}, temporary)
    stored = {name: value.astype(np.float64) for name, value in load_file(file).items()}
    return Clip(stored["level"], stored["f0"], float(stored["snr"][0]))


def quality(utterance: Utterance, cache: Path) -> float:
    """DNS-MOS OVRL; about a CPU second when it is not known yet. NaN for silence."""
    metric = DnsMos()
    file = cache / "diversity" / f"{digest([content_hash(utterance.audio), metric.model, metric.version])}.json"
    if not file.is_file():
        write_json(file, metric.score(recording(utterance.audio), RATE, utterance))
    return float(read_json(file))


def quality_is_known() -> bool:
    """Is DNS-MOS installed?"""
    return find_spec("speechmos") is not None


def phones(utterance: Utterance) -> list[str]:
    """Without stress marks and pauses, of the manifest, else espeak-ng's; [] for an utterance whose text is not known or says nothing."""
    try:
        symbols = [p.symbol for p in utterance.phones] or (phonemize(utterance.text, utterance.language) if utterance.text else ())
    except UserError:
        return []
    return [split_stress(s)[0] for s in symbols if s != PAUSE]


def rate(utterance: Utterance, seconds: float) -> float:
    """Syllables a second, pauses counted; NaN where there is no text or no speech."""
    try:
        return syllables(utterance) / seconds if utterance.text and seconds else float("nan")
    except UserError:
        return float("nan")
