"""Durations learnt without an aligner's labels (Badlani et al. 2021, "One TTS Alignment To Rule Them All"), as in HyperTTS.

Soft alignment from distances between phones and frames, pulled to the diagonal by a prior; a forward sum over all monotonic
paths to learn it; the best path, found on the device itself, as durations. The host is never waited for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLANK = -1.0
"""log score of "no phone" in the forward sum, before the softmax over phones and blank"""
_NEVER = -1e4
"""log score of padding; minus infinity would make the gradient of CTC undefined"""


@dataclass(frozen=True)
class Alignment:
    """Frames against phones."""

    log_scores: Tensor
    """(B, T, P) log softmax over phones plus log prior"""
    log_soft: Tensor
    """(B, T, P) the same, normalised over phones; -1e4 where there is no phone"""
    owner: Tensor
    """(B, T) the phone of each frame on the best path"""
    durations: Tensor
    """(B, P) long, frames of each phone on it; 0 for padding"""

    def soft(self) -> Tensor:
        return self.log_soft.exp()

    def forward_sum(self, phones: Sequence[int], frames: Sequence[int]) -> Tensor:
        """(B,) negative log probability of all monotonic alignments, per phone; `phones`, `frames`: lengths, known to the host."""
        return forward_sum(self.log_scores, phones, frames)

    def binarization(self) -> Tensor:
        """(B, T) negative log of the soft alignment on the best path."""
        return -self.log_soft.gather(2, self.owner[..., None])[..., 0].clamp_min(-27.6)  # ln 1e-12


class Aligner(nn.Module):
    """Distances between projected phone embeddings and projected mel frames, voice added to both."""

    def __init__(self, width: int, n_mels: int, channels: int = 80, temperature: float = 5e-4, scaling: float = 1.0) -> None:
        """`temperature` multiplies the squared distance; `scaling` > 1 makes the beta-binomial prior narrower."""
        super().__init__()
        self.temperature, self.scaling = temperature, scaling
        self.key = nn.ModuleList([nn.Conv1d(width, 2 * width, 3, padding=1), nn.Conv1d(2 * width, channels, 1)])
        self.query = nn.ModuleList(
            [nn.Conv1d(n_mels, 2 * n_mels, 3, padding=1), nn.Conv1d(2 * n_mels, n_mels, 1), nn.Conv1d(n_mels, channels, 1)]
        )
        self.key_voice = nn.Linear(width, width, bias=False)
        self.query_voice = nn.Linear(width, n_mels, bias=False)
        for layers in (self.key, self.query):  # the first feeds a ReLU
            for i, layer in enumerate(layers):
                nn.init.xavier_uniform_(layer.get_parameter("weight"), nn.init.calculate_gain("linear" if i else "relu"))

    def forward(self, phones: Tensor, mel: Tensor, voice: Tensor, phone_mask: Tensor, frame_mask: Tensor) -> Alignment:
        """(B, P, C) embedded phones, (B, T, n_mels), (B, C), (B, P) and (B, T) bool."""
        real = phone_mask[:, None]
        keys = _projected(self.key, (phones + self.key_voice(voice)[:, None]) * phone_mask[..., None])
        queries = _projected(self.query, (mel + self.query_voice(voice)[:, None]) * frame_mask[..., None])
        # |q - k|^2 without a (B, T, P, channels) tensor; |q|^2 is the same for every phone, so softmax does not see it.
        scores = self.temperature * (2 * queries @ keys.mT - keys.square().sum(-1)[:, None])
        phone_count, frame_count = phone_mask.sum(1), frame_mask.sum(1)
        prior = beta_binomial(phone_count, frame_count, scores.shape[1], scores.shape[2], self.scaling)
        scores = scores.float().masked_fill(~real, _NEVER).log_softmax(-1) + (prior + 1e-8).log()
        log_soft = scores.masked_fill(~real, _NEVER).log_softmax(-1)
        owner, durations = monotonic_path(log_soft.detach(), phone_count, frame_mask)
        return Alignment(scores.masked_fill(~real, _NEVER), log_soft, owner, durations)


def _projected(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """(B, L, C) -> (B, L, channels): ReLU between layers."""
    x = x.mT
    for i, layer in enumerate(layers):
        x = layer(x.relu() if i else x)
    return x.mT


def beta_binomial(phones: Tensor, frames: Tensor, rows: int, columns: int, scaling: float = 1.0) -> Tensor:
    """(B,), (B,) -> (B, rows, columns): probability of phone k of P at frame t of T, k ~ BetaBinomial(P, s t, s (T + 1 - t)).

    t counts from 1. A cigar around the diagonal (Shih et al. 2021, RAD-TTS, section 2.3). Meaningless beyond the lengths.
    """
    k = torch.arange(columns, device=phones.device).expand(1, 1, -1)
    t = torch.arange(1, rows + 1, device=phones.device)[None, :, None]
    n, end = phones[:, None, None], frames[:, None, None] + 1
    alpha, beta = scaling * t, scaling * (end - t).clamp_min(1)
    left = (n - k).clamp_min(0)
    ways = torch.lgamma(n + 1.0) - torch.lgamma(k + 1.0) - torch.lgamma(left + 1.0)
    chosen = torch.lgamma(k + alpha) + torch.lgamma(left + beta) - torch.lgamma(n + alpha + beta)
    return (ways + chosen - torch.lgamma(alpha + 0.0) - torch.lgamma(beta + 0.0) + torch.lgamma(alpha + beta + 0.0)).exp()


def forward_sum(log_scores: Tensor, phones: Sequence[int], frames: Sequence[int]) -> Tensor:
    """(B, T, P) -> (B,) nats per phone: CTC over the phones in order, with a blank of constant score before the softmax."""
    padded = F.pad(log_scores.float(), (1, 0), value=BLANK).log_softmax(-1)
    columns = torch.arange(1, padded.shape[2], device=padded.device).repeat(len(padded), 1)
    nats = torch.ctc_loss(padded.transpose(0, 1), columns, list(frames), list(phones), 0, 0, True)  # blank 0, no reduction
    return nats / torch.tensor(list(phones), dtype=nats.dtype).to(nats.device, non_blocking=True)


@torch.no_grad()
def monotonic_path(log_soft: Tensor, phones: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, P) log scores, (B,) lengths, (B, T) -> (B, T) owner of each frame, (B, P) durations; of the likeliest path.

    A path starts at the first phone, ends at the last and goes on by one phone or none from frame to frame (Viterbi). All
    utterances go at once. Frames beyond an utterance belong to its last phone and count nowhere.
    """
    batch, frames, columns = log_soft.shape
    best = log_soft.new_full((batch, columns), -torch.inf)
    best[:, 0] = log_soft[:, 0, 0]
    came = []
    for t in range(1, frames):
        before = F.pad(best[:, :-1], (1, 0), value=-torch.inf)
        came.append(before >= best)
        best = torch.maximum(before, best) + log_soft[:, t]
    at = phones[:, None] - 1
    path = [at]
    for t in range(frames - 1, 0, -1):
        at = at - (came[t - 1].gather(1, at) & frame_mask[:, t, None]).long()
        path.append(at)
    owner = torch.cat(path[::-1], 1)
    return owner, torch.zeros_like(log_soft[:, 0], dtype=torch.long).scatter_add_(1, owner, frame_mask.long())


class Schedule(nn.Module):
    """Which part of the objective is on, by the number of training passes so far; saved with the weights.

    HyperTTS: soft alignment until 6,000, binarisation from 18,000 rising over 10,000, variances learnt from 50,000.
    """

    passes: Tensor

    def __init__(self, hard_from: int = 6000, binarize_from: int = 18000, binarize_over: int = 10000, variances_from: int = 50000) -> None:
        super().__init__()
        self.hard_from, self.binarize_from, self.binarize_over = hard_from, binarize_from, binarize_over
        self.variances_from = variances_from
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.done = 0
        """`passes`, as the host knows it without asking the device"""
        self.register_load_state_dict_post_hook(_resume)

    def resume(self, passes: int) -> None:
        """Go on as after so many passes."""
        self.done = passes
        self.passes.fill_(passes)

    def advance(self) -> None:
        """After a training pass."""
        self.done += 1
        self.passes.fill_(self.done)

    @property
    def hard(self) -> bool:
        """Frames are read off the best path, not off the soft alignment."""
        return self.done >= self.hard_from

    @property
    def binarization(self) -> float:
        """Weight of that term."""
        return min(max(self.done - self.binarize_from, 0) / max(self.binarize_over, 1), 1.0)

    @property
    def variances(self) -> float:
        """Weight of durations, pitch and energy."""
        return float(self.done >= self.variances_from)


def _resume(schedule: Schedule, _: object) -> None:
    schedule.resume(int(schedule.passes))
