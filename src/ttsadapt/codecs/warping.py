"""Copies of recordings in voices that do not exist: vocal tracts of other lengths, and other spectral tilts."""

from collections.abc import Sequence

import torch
from torch import Tensor

FACTORS = (0.82, 0.88, 0.94, 1.06, 1.12, 1.2)
"""by which the mel axis is stretched (vocal tract length perturbation, Jaitly & Hinton 2013)"""
TILT = 1.0
"""nats between the middle and the top of the spectrum, at most"""


def warped(mels: Sequence[Tensor]) -> list[Tensor]:
    """(T, n_mels) nats each -> one copy of each. Draws from torch's global generator."""
    copies = []
    for i, mel in enumerate(mels):
        slope = torch.linspace(-1, 1, mel.shape[1]) * TILT * (2 * torch.rand(()) - 1)
        copies.append(mel @ _stretch(mel.shape[1], FACTORS[i % len(FACTORS)]) + slope)
    return copies


def _stretch(bands: int, factor: float) -> Tensor:
    """(bands, bands): band i of the copy is band i * factor of the original, linearly interpolated; the last one repeats."""
    place = torch.arange(float(bands)) * factor
    low = place.floor().clamp(max=bands - 1).long()
    high = (low + 1).clamp(max=bands - 1)
    weight = (place - low).clamp(0, 1)
    table = torch.zeros(bands, bands)
    index = torch.arange(bands)
    table[low, index] += 1 - weight
    table[high, index] += weight
    return table
