"""How recordings are brought in: what is done to each of them, which are refused, how they are split."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.splits import BySentence, Rule, check_fractions
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import ConfigError


class Denoiser(Protocol):
    """Takes noise out of a recording; small, picklable, the same every time."""

    def __call__(self, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """(samples,) -> as many."""


class Cutter(Protocol):
    """Cuts long recordings where the text can be cut as well."""

    def cut(self, found: Found, duration: float) -> list[Found | Rejected]:
        """`duration` of the recording in seconds -> its pieces, with `start`, `end` and the words said there; all of one `group`."""


class Aligner(Protocol):
    """Says when what is said; runs after everything else, on what was written."""

    @property
    def phones(self) -> bool:
        """Of phones, or of words alone?"""

    @property
    def sure(self) -> Sequence[float]:
        """0 to 1, of each utterance so far whose text could be laid along it, in order."""

    @property
    def poor(self) -> float:
        """A median of `sure` below this says that something is wrong."""

    def fit(self, utterances: Sequence[Utterance]) -> None:
        """Learn from what is to be aligned, where it learns from that at all: all of it, before the first of `times`."""

    def times(self, utterance: Utterance) -> Utterance | Rejected:
        """The utterance with its phones."""


@dataclass(frozen=True)
class Bringing:
    """What happens to a recording on its way in, in this order: read, averaged over channels, freed of its mean, resampled, denoised,
    trimmed, levelled, written as 16-bit mono. Nothing of it depends on `processes`."""

    sample_rate: int = 16000
    """Hz"""
    fractions: Sequence[float] = (0.8, 0.1, 0.1)
    """of train, valid and test, where the corpus does not say"""
    split_by: Rule | None = None
    """what is never in two splits; None: sentences"""
    trim: float | None = None
    """dB below the loudest 20 ms: what is quieter at both ends is silence and cut off; None: nothing is"""
    margin: float = 0.1
    """seconds that are kept of it"""
    loudness: float | None = None
    """LUFS (ITU-R BS.1770-4) that every recording gets; None: its own. It takes the difference between loud and soft emotions away"""
    peak: float = -1.0
    """dBFS that no sample exceeds after that: the gain is smaller where it would"""
    shortest: float = 0.1
    """seconds after trimming"""
    longest: float | None = None
    """seconds after trimming; None: any"""
    clipped: float = 0.01
    """share of samples at full scale above which a recording is refused"""
    denoise: Denoiser | None = None
    segments: Cutter | None = None
    align: Aligner | None = None
    processes: int | None = None
    """None: one for each core"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fractions", tuple(self.fractions))
        check_fractions(self.fractions)
        if not 8000 <= self.sample_rate <= 48000:
            raise ConfigError(f"bring.sample_rate is {self.sample_rate}: give 8000 to 48000 Hz")
        for name in ("trim", "longest", "processes"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"bring.{name} is {value}: give more than 0, or null")
        for name in ("loudness", "peak"):
            if (value := getattr(self, name)) is not None and value > 0:
                raise ConfigError(f"bring.{name} is {value}: give 0 or less, full scale is 0")
        if self.align is not None and not self.align.phones:
            raise ConfigError(f"bring.align: {type(self.align).__name__} times words here, not phones: take learned, ctc or hub_phones")
        if self.longest is not None and self.longest <= self.shortest:
            raise ConfigError(f"bring.longest is {self.longest} and bring.shortest {self.shortest}: the first must be more")

    @property
    def rule(self) -> Rule:
        return self.split_by or BySentence()

    def settings(self) -> dict[str, Any]:
        """What changes what is written, as plain values."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "processes"} | {"split_by": plain(self.rule)}


def plain(value: Any) -> Any:
    """Objects as their class and what they hold: what a fingerprint is made of."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, Set) else value)]
    if hasattr(value, "settings"):
        return [type(value).__qualname__, plain(value.settings())]
    if hasattr(value, "__dict__"):
        return [type(value).__qualname__, plain(vars(value))]
    return value
