"""Which blocks carry emotion and speaker: weighted-sum probes on a frozen backbone (CSP-FT, arXiv 2501.14273, section 2.2).

For each label a softmax over blocks weighs their normalised outputs; the sum goes through three convolutions and attentive
statistics pooling to a classifier. The two weight vectors and the two heads learn together, nothing else does. How much
weight a block gets is how much it carries. Block outputs are averaged over a few frames before they are kept (emotion and
speaker vary slowly; averaging commutes with the weighted sum), once, since the backbone never changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from scipy.stats import binom
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ttsadapt.analysis.fisher import drawn, resting
from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.data.features import FeatureSet
from ttsadapt.errors import ConfigError, DataError, UserError

LABELS = ("emotion", "speaker")
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Settings:
    """How the probes are made and trained."""

    group: str | None = None
    """of blocks; None: the largest, the last of equals"""
    utterances: int = 400
    """drawn from the data"""
    epochs: int = 16
    batch: int = 16
    """utterances"""
    lr: float = 3e-3
    """peak of Adam's, after a warm-up over 8 % of the steps; the paper's 5e-4 is for many more steps"""
    weights_lr: float = 3e-2
    """the same for the weights over blocks, which would hardly leave their uniform start in so few steps"""
    clip: float = 10.0
    """of the gradient's norm"""
    width: int = 64
    """channels of the heads' convolutions"""
    kernel: int = 5
    pool: int = 5
    """positions averaged into one"""
    held_out: float = 0.2
    """share of the utterances that the probes are judged by"""
    frames: int = 4000
    """of a batch through the backbone"""
    memory: float = 4.0
    """GiB that the block outputs may take"""
    half: bool = False
    """keep them in half precision"""
    seed: int = 0


@dataclass
class Ranking:
    """What `layers.json` holds. Lists run over `blocks`, from input to output."""

    group: str
    blocks: list[str]
    emotion: list[float]
    """softmax weights; empty when the data knows one emotion only"""
    speaker: list[float]
    mean: list[float]
    """of those weights whose probe beats chance (equation 3)"""
    chosen: list[str] = field(default_factory=list)
    probe: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def block(self, place: str | int) -> str:
        """By rank: "highest" or 0, 1 the second highest ... "lowest" or -1, -2 the second lowest ..."""
        order = sorted(range(len(self.blocks)), key=lambda i: -self.mean[i])
        rank = {"highest": 0, "lowest": -1}.get(place, place) if isinstance(place, str) else place
        if not isinstance(rank, int) or not -len(order) <= rank < len(order):
            raise ConfigError(f"choose={place!r}: give highest, lowest or a rank, for the {len(order)} blocks of {self.group}")
        return self.blocks[order[rank]]


def rank(backbone: Backbone, features: FeatureSet, settings: Settings) -> Ranking:
    """Weighs the blocks of one group. UserError when neither label can be read off them better than by chance."""
    group = settings.group or largest_group(backbone)
    if group not in backbone.blocks:
        raise ConfigError(f"group={group}: {type(backbone).__name__} has the groups {', '.join(backbone.blocks)}")
    generator = torch.Generator().manual_seed(settings.seed)
    part = drawn(features, settings.utterances, generator)
    labels = _labels(part)
    states = block_outputs(backbone, part, group, settings)
    ids = [i for i in part.ids if i in states]
    order = [ids[k] for k in torch.randperm(len(ids), generator=generator).tolist()]
    held_out, learnt = order[: round(settings.held_out * len(order))], order[round(settings.held_out * len(order)) :]
    if len(held_out) < 2 or len(learnt) < 2:
        raise DataError(f"layer analysis: {len(order)} source utterances with speech in {group} are too few to train and judge probes")
    device = next(backbone.parameters()).device
    probes = _train(states, labels, learnt, settings, device, generator)
    correct = {n: _correct(probe, states, labels[n], held_out, settings) for n, probe in probes.items()}
    return _ranking(backbone, group, probes, correct, {n: [labels[n][i] for i in held_out] for n in labels}, settings)


def largest_group(backbone: Backbone) -> str:
    groups = list(backbone.blocks)
    return max(groups, key=lambda g: (len(backbone.blocks[g]), groups.index(g)))


def _labels(features: FeatureSet) -> dict[str, dict[str, int]]:
    """{label: {utterance: class}} for each label that takes at least two values."""
    labels: dict[str, dict[str, int]] = {}
    for label in LABELS:
        values = {i: getattr(features.utterances[i], label) for i in features.ids}
        classes = {c: k for k, c in enumerate(sorted(set(values.values())))}
        if len(classes) > 1:
            labels[label] = {i: classes[c] for i, c in values.items()}
    if not labels:
        raise DataError("layer analysis: the source data has one speaker and one emotion: give data with several of either")
    return labels


def block_outputs(backbone: Backbone, features: FeatureSet, group: str, settings: Settings) -> dict[str, Tensor]:
    """{utterance: (T, L, C)} outputs of L blocks at speech positions, layer norm without affine, averaged `pool` by `pool`."""
    device = next(backbone.parameters()).device
    blocks = list(backbone.blocks[group].values())
    states: dict[str, Tensor] = {}
    size = 0
    with torch.no_grad(), resting(backbone), _listening(blocks) as heard:
        progress = tqdm(total=len(features.ids), desc="block outputs", unit="utt", leave=False)
        for batch in features.batches(settings.frames):
            batch = to_device(batch, device)
            backbone(batch)
            stacked = torch.stack([F.layer_norm(x.float(), x.shape[-1:]) for x in heard], 1)  # (B, L, T, C)
            for i, state, mask in zip(batch["ids"], stacked, backbone.block_mask(batch, group)):
                if mask.any():
                    states[i] = _averaged(state[:, mask], settings.pool).to("cpu", torch.float16 if settings.half else None)
                    size += states[i].nbytes
            progress.update(len(batch["ids"]))
            if size > settings.memory * 2**30:
                raise ConfigError(f"layer analysis: block outputs exceed memory={settings.memory} GiB: lower utterances, or set half=true")
        progress.close()
    return states


@contextmanager
def _listening(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that holds every block's latest output (B, T, C)."""
    heard: list[Tensor] = [torch.empty(0)] * len(blocks)

    def hook(i: int) -> Any:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            heard[i] = output if isinstance(output, Tensor) else output[0]

        return keep

    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _averaged(state: Tensor, pool: int) -> Tensor:
    """(L, T, C) -> (ceil(T / pool), L, C); the last mean is over what is left."""
    return F.avg_pool1d(state.transpose(1, 2), pool, pool, ceil_mode=True).permute(2, 0, 1).contiguous()


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


def _train(
    states: dict[str, Tensor],
    labels: dict[str, dict[str, int]],
    ids: list[str],
    settings: Settings,
    device: torch.device,
    generator: torch.Generator,
) -> nn.ModuleDict:
    """Both probes at once on the summed cross-entropies, weighed alike (sections 2.2, 3.2.2)."""
    _, blocks, channels = states[ids[0]].shape
    with torch.random.fork_rng(devices=[]):  # the run's own random state stays as it was
        torch.manual_seed(settings.seed)
        probes = nn.ModuleDict(
            {n: Probe(blocks, channels, max(of.values()) + 1, settings.width, settings.kernel) for n, of in labels.items()}
        ).to(device)
    of_blocks = [p for n, p in probes.named_parameters() if n.endswith(".weights")]
    heads = [p for n, p in probes.named_parameters() if not n.endswith(".weights")]
    groups: list[dict[str, Any]] = [{"params": heads}, {"params": of_blocks, "lr": settings.weights_lr}]
    optimizer = torch.optim.Adam(groups, settings.lr)
    steps = max(1, len(ids) // settings.batch)  # batches of an epoch, none smaller than `batch` where there are enough
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _schedule(s, settings.epochs * steps))
    for _ in tqdm(range(settings.epochs), "layer probes", unit="epoch", leave=False):
        for chosen in torch.randperm(len(ids), generator=generator).tensor_split(steps):
            some = [ids[k] for k in chosen.tolist()]
            x, lengths = _padded(states, some, device)
            loss = sum(
                F.cross_entropy(probe(x, lengths), torch.tensor([labels[n][i] for i in some], device=device)) for n, probe in probes.items()
            )
            optimizer.zero_grad()
            torch.as_tensor(loss).backward()
            nn.utils.clip_grad_norm_(probes.parameters(), settings.clip)
            optimizer.step()
            scheduler.step()
    return probes.eval()


def _schedule(step: int, total: int, warmup: float = 0.08) -> float:
    """Linear up over the first 8 %, linear down to 0."""
    rise = max(1, round(warmup * total))
    return min((step + 1) / rise, (total - step) / max(1, total - rise), 1.0)


def _padded(states: dict[str, Tensor], ids: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T, L, C) float32 and (B,) lengths."""
    some = [states[i] for i in ids]
    lengths = torch.tensor([len(s) for s in some], device=device)
    return pad_sequence(some, batch_first=True).to(device).float(), lengths


@torch.no_grad()
def _correct(probe: nn.Module, states: dict[str, Tensor], of: dict[str, int], ids: list[str], settings: Settings) -> int:
    """How many of the utterances the probe classifies rightly."""
    right = 0
    for start in range(0, len(ids), settings.batch):
        some = ids[start : start + settings.batch]
        x, lengths = _padded(states, some, next(probe.parameters()).device)
        right += sum(p == of[i] for p, i in zip(probe(x, lengths).argmax(-1).tolist(), some))
    return right


def _ranking(
    backbone: Backbone,
    group: str,
    probes: nn.ModuleDict,
    correct: dict[str, int],
    truth: dict[str, list[int]],
    settings: Settings,
) -> Ranking:
    weights = {n: probe.get_parameter("weights").detach().softmax(0).tolist() for n, probe in probes.items()}
    judged: dict[str, Any] = {f"{n}_{what}": None for n in LABELS for what in ("accuracy", "chance")}
    used: list[str] = []
    for name, classes in truth.items():
        n, chance = len(classes), max(classes.count(c) for c in classes) / len(classes)
        judged |= {f"{name}_accuracy": correct[name] / n, f"{name}_chance": chance}
        if binom.sf(correct[name] - 1, n, chance) < SIGNIFICANCE:
            used.append(name)
    if not used:
        found = ", ".join(f"{n} {judged[f'{n}_accuracy']:.0%} (chance {judged[f'{n}_chance']:.0%})" for n in truth)
        raise UserError(
            f"layer analysis: no label can be read off the {group} blocks of {type(backbone).__name__} better than by chance "
            f"({found} of {len(next(iter(truth.values())))} held-out utterances): train the base longer, or raise utterances or epochs"
        )
    mean = [sum(ws) / len(used) for ws in zip(*(weights[n] for n in used))]
    judged |= {"held_out": len(next(iter(truth.values()))), "used": used}
    return Ranking(
        group, list(backbone.blocks[group]), weights.get("emotion", []), weights.get("speaker", []), mean,
        probe=judged, settings=asdict(settings),
    )  # fmt: skip
