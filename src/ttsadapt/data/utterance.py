"""One recording with what is known about it: what frontends and metrics see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Phone(NamedTuple):
    """A phone and where it lies."""

    symbol: str
    """IPA with stress marks, or "_" for a pause"""
    start: float
    """seconds"""
    end: float
    """seconds"""


@dataclass(frozen=True)
class Utterance:
    """A recording; the manifest on disk is a lhotse CutSet (`ttsadapt.data.manifest`)."""

    id: str
    audio: Path
    text: str
    speaker: str
    emotion: str = "neutral"
    language: str = "en-us"
    """an espeak-ng voice name: "en-us", "en", "de" ..."""
    duration: float = 0.0
    """seconds"""
    phones: tuple[Phone, ...] = field(default=(), repr=False)
    """they tile the recording from 0 to `duration`; empty when no alignment is known"""
    label: str = ""
    """the emotion as its corpus calls it; "" where that is `emotion`"""
    context: tuple["Utterance", ...] = field(default=(), repr=False)
    """the turns before it in a dialogue, oldest first, of the same set and split"""
    hash: str = field(default="", repr=False)
    """of its samples, where it was brought in"""


def phone_times(utterances: Sequence[Utterance]) -> list[tuple[Phone, ...]] | None:
    """Of each utterance; None when some have none: a model cannot be told the phones of half its recordings."""
    return [u.phones for u in utterances] if all(u.phones for u in utterances) else None
