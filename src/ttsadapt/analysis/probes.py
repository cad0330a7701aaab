"""Probes that learn which blocks to listen to: a softmax over blocks, three convolutions, attentive statistics pooling, a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.analysis.ranking import Settings
from ttsadapt.bars import Bar

States = dict[str, Tensor]
"""{utterance: (T, L, C)} block outputs"""
Labels = dict[str, dict[str, int]]
"""{label: {utterance: class}}"""


class Probe(nn.Module):
    """One label's weights over blocks and its head."""

    def __init__(self, blocks: int, channels: int, classes: int, width: int, kernel: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(blocks))  # uniform after the softmax
        sizes = [channels, width, width, width]
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, kernel, padding="same") for a, b in pairwise(sizes))
        self.pool = AttentiveStatisticsPooling(width, attention_channels=width)
        self.classify = nn.Linear(2 * width, classes)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, L, C) padded block outputs, (B,) lengths -> (B, classes) logits."""
        inside = (torch.arange(states.shape[1], device=states.device) < lengths[:, None])[:, None]
        x = torch.einsum("l,btlc->bct", self.weights.softmax(0), states) * inside
        for convolution in self.convolutions:
            x = convolution(x).relu() * inside
        # relative lengths, half a position short: they are multiplied back, and must not round past the end
        return self.classify(self.pool(x, (lengths - 0.5) / x.shape[-1])[..., 0])


@dataclass
class Probed:
    """What the probes of one seed learnt, by label."""

    weights: dict[str, list[float]]
    """softmax over blocks"""
    accuracy: dict[str, float]
    """on the held-out utterances"""
    chance: dict[str, float]
    """share of their most frequent class"""


def probed(states: States, labels: Labels, settings: Settings, seed: int, device: torch.device) -> Probed:
    """Train on some of the utterances, judge on the others; which, and the heads' start, follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    order = [list(states)[k] for k in torch.randperm(len(states), generator=generator).tolist()]
    cut = held_out(len(order), settings)
    judged, learnt = order[:cut], order[cut:]
    probes = _train(states, labels, learnt, settings, seed, generator, device)
    truth = {n: [of[i] for i in judged] for n, of in labels.items()}
    return Probed(
        {n: probe.get_parameter("weights").detach().softmax(0).tolist() for n, probe in probes.items()},
        {n: _correct(probe, states, labels[n], judged, settings) / cut for n, probe in probes.items()},
        {n: max(classes.count(c) for c in classes) / cut for n, classes in truth.items()},
    )


def held_out(utterances: int, settings: Settings) -> int:
    return round(settings.held_out * utterances)


def _train(
    states: States, labels: Labels, ids: list[str], settings: Settings, seed: int, generator: torch.Generator, device: torch.device
) -> nn.ModuleDict:
    """Both probes at once on the summed cross-entropies, weighed alike (sections 2.2, 3.2.2)."""
    _, blocks, channels = states[ids[0]].shape
    with torch.random.fork_rng(devices=[]):  # the run's own random state stays as it was
        torch.manual_seed(seed)
        sizes = (blocks, channels)
        probes = nn.ModuleDict({n: Probe(*sizes, max(of.values()) + 1, settings.width, settings.kernel) for n, of in labels.items()})
    probes.to(device)
    steps = max(1, len(ids) // settings.batch)  # batches of an epoch, none smaller than `batch` where there are enough
    optimizer, scheduler = _optimizer(probes, settings, settings.epochs * steps)
    for _ in Bar(range(settings.epochs), "layer probes", unit="epoch", leave=False):
        for chosen in torch.randperm(len(ids), generator=generator).tensor_split(steps):
            some = [ids[k] for k in chosen.tolist()]
            x, lengths = _padded(states, some, device)
            losses = [F.cross_entropy(p(x, lengths), torch.tensor([labels[n][i] for i in some], device=device)) for n, p in probes.items()]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            nn.utils.clip_grad_norm_(probes.parameters(), settings.clip)
            optimizer.step()
            scheduler.step()
    return probes.eval()


def _optimizer(probes: nn.ModuleDict, settings: Settings, total: int) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
    of_blocks = [p for n, p in probes.named_parameters() if n.endswith(".weights")]
    heads = [p for n, p in probes.named_parameters() if not n.endswith(".weights")]
    groups: list[dict[str, Any]] = [{"params": heads}, {"params": of_blocks, "lr": settings.weights_lr}]
    optimizer = torch.optim.Adam(groups, settings.lr)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, total))


def _schedule(step: int, total: int, warmup: float = 0.08) -> float:
    """Linear up over the first 8 %, linear down to 0."""
    rise = max(1, round(warmup * total))
    return min((step + 1) / rise, (total - step) / max(1, total - rise), 1.0)


def _padded(states: States, ids: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T, L, C) float32 and (B,) lengths."""
    some = [states[i] for i in ids]
    lengths = torch.tensor([len(s) for s in some], device=device)
    return pad_sequence(some, batch_first=True).to(device).float(), lengths


@torch.no_grad()
def _correct(probe: nn.Module, states: States, of: dict[str, int], ids: list[str], settings: Settings) -> int:
    """How many of the utterances the probe classifies rightly."""
    right = 0
    for start in range(0, len(ids), settings.batch):
        some = ids[start : start + settings.batch]
        x, lengths = _padded(states, some, next(probe.parameters()).device)
        right += sum(p == of[i] for p, i in zip(probe(x, lengths).argmax(-1).tolist(), some))
    return right
