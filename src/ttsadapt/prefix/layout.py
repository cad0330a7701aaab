"""Where in a padded batch the positions of an utterance lie, found by what enters the first block there.

Models pad on the right, on the left, or between text and audio. All of these are one gap in a row, wherever it is; the inputs
say where, so no model has to. They also say whether they are still what they were when the states were kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 8
"""numbers by which an input is known again"""


def prints(x: Tensor) -> Tensor:
    """(..., C) -> (..., SIZE): random projections, the same in every process."""
    draw = torch.randn(x.shape[-1], SIZE, generator=torch.Generator().manual_seed(x.shape[-1]))
    with torch.autocast(x.device.type, enabled=False):
        return x.detach().float() @ (draw / x.shape[-1] ** 0.5).to(x.device)


def tolerance(x: Tensor) -> float:
    """How far apart the same number may come out in another batch, as a share of its usual size: half of all digits."""
    kind = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
    return torch.finfo(kind).eps ** 0.5


@dataclass
class Rows:
    """Positions of several utterances, one utterance after another."""

    row: Tensor
    """(N,) which utterance"""
    step: Tensor
    """(N,) which of its positions"""
    lengths: Tensor
    """(B,) positions of each utterance"""

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Rows":
        counts = torch.tensor(lengths)
        row = torch.repeat_interleave(torch.arange(len(counts)), counts)
        step = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        return cls(row.to(device, non_blocking=True), step.to(device, non_blocking=True), counts.to(device, non_blocking=True))


def place(found: Tensor, wanted: Tensor, rows: Rows, share: float) -> tuple[Tensor, Tensor]:
    """Where the positions with prints `wanted` (N, SIZE) are in a batch with prints `found` (B, T, SIZE): (N,) places, () bool.

    The second says whether all were found in order, to `share` of their usual size. No value is read back from the device.
    """
    length, device = found.shape[1], found.device
    allowed = share * wanted.square().mean().sqrt()

    def same(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).abs() <= allowed).all(-1)

    straight = same(found[rows.row, rows.step.clamp(max=length - 1)], wanted) & (rows.step < length)
    gap = rows.lengths.clone()  # where the gap begins: the first position that is not where it would be without one
    gap.scatter_reduce_(0, rows.row, torch.where(straight, rows.lengths[rows.row], rows.step), "amin")
    starts = rows.lengths.cumsum(0) - rows.lengths
    after = wanted[starts + gap.minimum(rows.lengths - 1)]  # (B, SIZE): what comes after the gap
    later = torch.arange(length, device=device) >= gap[:, None]
    end = (same(found, after[:, None]) & later).byte().argmax(1)
    places = torch.where(rows.step < gap[rows.row], rows.step, rows.step + (end - gap)[rows.row]).clamp(0, length - 1)
    return places, same(found[rows.row, places], wanted).all()
