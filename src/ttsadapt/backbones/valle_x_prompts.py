"""Which frames the later levels are shown in full while they train (lifeiteng/vall-e's prefix modes 0, 1, 2 and 4)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ttsadapt.errors import ConfigError


@dataclass(frozen=True)
class Shown:
    """What a batch shows to the decoder of the later levels."""

    codes: Tensor
    """(B, T, Q)"""
    heard: Tensor
    """(B, T) bool: no padding"""
    known: Tensor | None
    """(B, T) bool: frames given at all levels; None: there are none"""
    wanted: Tensor
    """(B, T) bool: frames whose codes are predicted"""
    scale: float
    """of the loss: as if every frame had been predicted"""


class Prompting(Protocol):
    def __call__(self, codes: Tensor, frames: Tensor, prompt: Tensor, rate: float) -> Shown:
        """Codes (B, T, Q), of which (B,) `frames` are real and the first (B,) `prompt` belong to a reference; frames a second."""
        ...


class Given:
    """The reference that the utterance goes on from; without one, nothing (prefix mode 0)."""

    def __call__(self, codes: Tensor, frames: Tensor, prompt: Tensor, rate: float) -> Shown:
        position = torch.arange(codes.shape[1])
        heard, known = position < frames[:, None], position < prompt[:, None]
        return Shown(codes, heard, known if bool(known.any()) else None, heard & ~known, 1.0)


class Prefix:
    """The beginning of the utterance itself (prefix mode 1, that of the released weights)."""

    def __init__(self, share: float = 0.25, seconds: float = 3.0) -> None:
        """Between `share` and twice that of the batch's shortest utterance, at most `seconds`."""
        _check(share, 0.5, seconds)
        self.share, self.seconds = share, seconds

    def __call__(self, codes: Tensor, frames: Tensor, prompt: Tensor, rate: float) -> Shown:
        low = int(self.share * int(frames.min()))
        length = int(torch.randint(low, max(2 * low, low + 1), ()))
        return self.cut(codes, frames, min(length, int(self.seconds * rate)))

    def cut(self, codes: Tensor, frames: Tensor, length: int) -> Shown:
        """The first `length` frames of every utterance are shown."""
        shown = Given()(codes, frames, torch.full_like(frames, length), 0.0)
        total = int(frames.sum())
        return Shown(shown.codes, shown.heard, shown.known, shown.wanted, total / max(total - length * len(frames), 1))


class Excerpt:
    """Frames from somewhere in the utterance, put before it; they are not predicted where they stand (prefix mode 2)."""

    def __init__(self, share: float = 0.25, seconds: float = 3.0) -> None:
        """`share` of the batch's shortest utterance, at most `seconds`."""
        _check(share, 1.0, seconds)
        self.share, self.seconds = share, seconds

    def __call__(self, codes: Tensor, frames: Tensor, prompt: Tensor, rate: float) -> Shown:
        length = min(int(self.share * int(frames.min())), int(self.seconds * rate))
        starts = [int(torch.randint(0, int(n) - length + 1, ())) for n in frames]
        return self.cut(codes, frames, torch.tensor(starts), length)

    def cut(self, codes: Tensor, frames: Tensor, starts: Tensor, length: int) -> Shown:
        """`length` frames from `starts` (B,) on."""
        index = starts[:, None] + torch.arange(length)  # (B, P)
        excerpt = codes.gather(1, index[..., None].expand(-1, -1, codes.shape[-1]))
        joined = Given()(torch.cat([excerpt, codes], 1), frames + length, torch.full_like(frames, length), 0.0)
        there = torch.zeros(codes.shape[:2], dtype=torch.bool).scatter(1, index, True)
        wanted = joined.wanted & ~torch.cat([torch.zeros_like(index, dtype=torch.bool), there], 1)
        total = int(frames.sum())
        return Shown(joined.codes, joined.heard, joined.known, wanted, total / max(total - length * len(frames), 1))


def _check(share: float, most: float, seconds: float) -> None:
    if not (0 <= share <= most and seconds >= 0):
        raise ConfigError(f"prompting: share={share} and seconds={seconds}: give a share of 0 to {most} and no negative length")
