"""What is kept of a teacher's predictions, so that it need not run beside the student: on disk, an utterance a file."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttsadapt.analysis.fisher import resting
from ttsadapt.artifacts import Artifact
from ttsadapt.backbones.base import Backbone, Batch, to_device
from ttsadapt.bars import Bar
from ttsadapt.data.features import FeatureSet
from ttsadapt.entropies import softmax_
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest
from ttsadapt.heads import Categorical, Head, Heads

Precision = Literal["float32", "float16", "bfloat16"]
PROBED = 8
"""utterances that are put together twice, to see whether chance has a part in it"""


class Keeping(Protocol):
    """What is kept of a head, and how it teaches."""

    def key(self) -> object:
        """Whatever changes what is kept."""

    def of(self, head: Head) -> dict[str, Tensor]:
        """(N, ...) tensors; none where there is nothing to learn."""

    def teacher(self, student: Head, kept: Mapping[str, Tensor]) -> object:
        """The teacher of a head at the same positions."""


class States:
    """What a prediction is made of. Exact, as long as what makes it does not train."""

    def key(self) -> object:
        return "states"

    def of(self, head: Head) -> dict[str, Tensor]:
        return {head.state: getattr(head, head.state)} if head.state else {}

    def teacher(self, student: Head, kept: Mapping[str, Tensor]) -> Head:
        if isinstance(student, Categorical) and _trains(student):
            raise ConfigError(
                "strategy.kd.cache=states: the output layer trains in this run, so the teacher's states no longer give its "
                "predictions: use cache=topk or cache=none"
            )
        return replace(student, **kept)  # type: ignore[arg-type]  # the one field that `state` names


class TopK:
    """The k likeliest classes; all others are one class together. Biased: how the teacher spreads the rest is lost."""

    def __init__(self, k: int, temperature: float) -> None:
        self.k, self.temperature = k, temperature

    def key(self) -> object:
        return ["topk", self.k, self.temperature]

    def of(self, head: Head) -> dict[str, Tensor]:
        if not isinstance(head, Categorical):
            return States().of(head)
        packed = head.by_chunks(lambda own, _: self._pack(own.logits / self.temperature))
        return {"packed": packed}

    def _pack(self, logits: Tensor) -> Tensor:
        """(n, V) -> (n, 2 k' + 1) float64, in which indices are exact: logits, indices, log of the others' mass."""
        value, index = logits.topk(min(self.k, logits.shape[1]), -1)
        others = logits.scatter(1, index, float("-inf")).logsumexp(-1, keepdim=True)
        return torch.cat([value.double(), index.double(), others.double()], 1)

    def teacher(self, student: Head, kept: Mapping[str, Tensor]) -> object:
        if "packed" not in kept:
            return States().teacher(student, kept)
        packed = kept["packed"]
        k = packed.shape[1] // 2
        return Likeliest(student.row, packed[:, :k].float(), packed[:, k : 2 * k].long(), packed[:, -1].float())


def _trains(head: Categorical) -> bool:
    with torch.enable_grad():
        return head.project(head.hidden[: head.together].detach()).requires_grad


@dataclass(eq=False)
class Likeliest:
    """A teacher of which the likeliest classes are known, at one temperature; an `entropies.Teacher`."""

    row: Tensor
    """(N,)"""
    logits: Tensor
    """(N, k) divided by the temperature"""
    index: Tensor
    """(N, k)"""
    others: Tensor
    """(N,) log of the sum of exp of all other logits, divided by the temperature"""

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """(N, k), and (N,) of all other classes."""
        total = torch.logaddexp(self.logits.logsumexp(-1), self.others)
        return (self.logits - total[:, None]).exp(), (self.others - total).exp()

    def kl_to(self, logits: Tensor, temperature: float) -> Tensor:
        """(N, V) of a student -> (N,) KL over the k classes and the rest as one; differentiable in the student."""
        logs = (logits / temperature).log_softmax(-1)
        rest = logs.scatter(1, self.index, float("-inf")).logsumexp(-1)
        known, other = self.probabilities()
        value = (torch.xlogy(known, known) - known * logs.gather(1, self.index)).sum(-1)
        return value + torch.xlogy(other, other) - torch.where(other > 0, other * rest, 0.0)

    @torch.no_grad()
    def pull(self, logits: Tensor, dim: int, part: Tensor | slice, temperature: float) -> tuple[Tensor, Tensor]:
        mine = self._at(part)
        known, other = mine.probabilities()
        index, known = (t if dim == 1 else t.T for t in (mine.index, known))
        student = logits / temperature
        softmax_(student, dim)
        chosen = student.gather(dim, index)
        rest = student.scatter_(dim, index, 0.0).sum(dim).clamp_min_(torch.finfo(student.dtype).tiny)
        value = (torch.xlogy(known, known) - torch.xlogy(known, chosen.clamp_min(torch.finfo(student.dtype).tiny))).sum(dim)
        value += torch.xlogy(other, other) - torch.xlogy(other, rest)
        student.mul_((1 - other / rest).unsqueeze(dim))
        return value, student.scatter_(dim, index, chosen - known)

    def as_teacher(self) -> Self:
        return self

    def positions_of(self, keep: Tensor) -> Tensor:
        return keep.to(self.row.device)[self.row].nonzero(as_tuple=True)[0]

    def select(self, keep: Tensor) -> Self:
        return self._at(self.positions_of(keep))

    def part(self, positions: slice) -> Self:
        return self._at(positions)

    def _at(self, index: Tensor | slice) -> Self:
        return type(self)(self.row[index], self.logits[index], self.index[index], self.others[index])


class Lessons(Artifact):
    """What a backbone says of every utterance of a set, kept by `keeping`."""

    def __init__(self, cache: Path, backbone: Backbone, features: FeatureSet, keeping: Keeping, precision: Precision, frames: int) -> None:
        self.backbone, self.features, self.keeping, self.frames = backbone, features, keeping, frames
        self.precision: Precision = precision
        self.folder = cache / f"kd-{digest([keeping.key(), precision, features.folder.name])}"

    def build(self, folder: Path) -> None:
        refuse_chance(self.backbone, self.features, self.keeping)
        with Bar(total=len(self.features), desc="teacher", unit="utt", leave=False) as bar:
            for batch in self.features.batches(self.frames):
                for utterance, kept in predicted(self.backbone, batch, self.keeping):
                    save_file({n: self._narrow(t) for n, t in kept.items()}, folder / _file(utterance))
                bar.update(len(batch["ids"]))

    def _narrow(self, kept: Tensor) -> Tensor:
        """Indices, which are packed in float64, stay exact."""
        return kept.cpu().contiguous() if kept.dtype == torch.float64 else kept.to("cpu", getattr(torch, self.precision)).contiguous()

    def read(self, utterance: str) -> dict[str, Tensor]:
        return load_file(self.folder / _file(utterance))


def _file(utterance: str) -> str:
    return f"{hashlib.blake2b(utterance.encode(), digest_size=12).hexdigest()}.safetensors"


@torch.no_grad()
def predicted(backbone: Backbone, batch: Batch, keeping: Keeping) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(id, {"<head>/<name>": (n, ...)}) for every utterance of the batch."""
    device = next(backbone.parameters()).device
    with resting(backbone):
        heads = backbone(to_device(batch, device))
    kept = {(name, field): (head.row, tensor) for name, head in heads.items() for field, tensor in keeping.of(head).items()}
    for number, utterance in enumerate(batch["ids"]):
        yield utterance, {f"{name}/{field}": tensor[row == number] for (name, field), (row, tensor) in kept.items()}


def refuse_chance(backbone: Backbone, features: FeatureSet, keeping: Keeping) -> None:
    """ConfigError when the same utterances, put together twice, are not predicted alike: what is drawn anew cannot be kept."""
    seen = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batch = features.collate(features.ids[:PROBED])
        seen.append((batch, dict(predicted(backbone, batch, keeping))))
    (batch, once), (again, twice) = seen
    drawn = [n for n, t in batch.items() if isinstance(t, Tensor) and not _alike(t, again[n])]
    if any(kept.keys() != twice[u].keys() or not all(_alike(t, twice[u][n]) for n, t in kept.items()) for u, kept in once.items()):
        raise ConfigError(
            f"strategy.kd.cache: {type(features.frontend).__name__} draws {', '.join(drawn) or 'something'} anew for every batch, so the "
            "teacher's predictions cannot be kept: use cache=none"
        )


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def taught(lessons: Sequence[Lessons], keeping: Keeping, batch: Batch, heads: Heads, keep: Tensor) -> dict[str, object]:
    """Teachers by head's name, at the positions of utterances with `keep` (B,)."""
    rows = keep.nonzero()[:, 0].tolist()
    origin = batch["origin"].tolist()
    by_origin = {one.features.origin: one for one in lessons}
    read = [by_origin[origin[row]].read(batch["ids"][row]) for row in rows]
    teachers: dict[str, object] = {}
    for name, head in heads.items():
        fields = [key.rpartition("/")[2] for key in (read[0] if read else ()) if key.rpartition("/")[0] == name]
        if fields:
            student = head.select(keep)
            order = student.row.argsort(stable=True)  # files have an utterance's positions together
            teachers[name] = keeping.teacher(student, {f: _placed([r[f"{name}/{f}"] for r in read], order, name) for f in fields})
    return teachers


def _placed(kept: list[Tensor], order: Tensor, name: str) -> Tensor:
    """(N, ...) in the order of the head's positions."""
    joined = torch.cat(kept)
    if len(joined) != len(order):
        raise DataError(f"strategy.kd.cache: {len(joined)} positions of {name} were kept and there are {len(order)}: use cache=none")
    dtype = joined.dtype if joined.dtype == torch.float64 else torch.float32
    placed = torch.empty(joined.shape, dtype=dtype, device=order.device)
    placed[order] = joined.to(order.device, dtype)
    return placed
