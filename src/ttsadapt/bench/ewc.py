"""What EWC costs: a training step with and without its penalty, a Fisher pass beside a pass of full fine-tuning.

Each function builds everything and returns the piece of work to be timed, which gives the tokens it went through. Weights and
tokens are drawn from seeds: the cost does not depend on what a model says.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ttsadapt.analysis.fisher import estimated
from ttsadapt.analysis.information import Factored, Whole, write
from ttsadapt.backbones.base import Batch
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.bench.base import Case, Comparison, Side, Work, cost
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Strategy, Study
from ttsadapt.strategies.ewc import EWC
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.lora import LoRA


@dataclass(frozen=True)
class Sizes:
    """A Qwen2 in the layout of NeuTTS, and its utterances."""

    blocks: int = 12
    width: int = 384
    hidden: int = 1536
    heads: int = 6
    text_rows: int = 151_671
    """of the table, beside those of speech"""
    speech_rows: int = 65_536
    text: tuple[int, int] = (20, 60)
    """tokens of an utterance, least and most"""
    speech: tuple[int, int] = (80, 400)
    batch: int = 4
    """utterances"""
    batches: int = 4
    """of a pass"""
    rank: int = 16


class Table:
    """Rows of the vocabulary: text, then speech, then the end, which also pads."""

    def __init__(self, sizes: Sizes) -> None:
        self.speech = range(sizes.text_rows, sizes.text_rows + sizes.speech_rows)
        self.end = self.pad = self.speech.stop

    def __len__(self) -> int:
        return self.end + 1


def model(sizes: Sizes, seed: int = 0) -> QwenTTS:
    torch.manual_seed(seed)
    longest = sizes.text[1] + sizes.speech[1] + 1
    frontend: Any = SimpleNamespace(
        codec=SimpleNamespace(sample_rate=16000), vocabulary=Table(sizes), max_tokens=longest, speaker_size=0
    )  # all that the model itself asks of one
    return QwenTTS(
        frontend, hidden_size=sizes.width, intermediate_size=sizes.hidden, num_hidden_layers=sizes.blocks,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads,
    )  # fmt: skip


def batches(sizes: Sizes, seed: int = 1) -> list[Batch]:
    """As training has them: sorted by length, so that little is padding."""
    draw = torch.Generator().manual_seed(seed)

    def between(bounds: tuple[int, int]) -> int:
        return int(torch.randint(bounds[0], bounds[1] + 1, (1,), generator=draw))

    lengths = sorted(((between(sizes.text), between(sizes.speech)) for _ in range(sizes.batch * sizes.batches)), key=sum)
    groups = [lengths[i : i + sizes.batch] for i in range(0, len(lengths), sizes.batch)]
    return [_batch(sizes, group, draw) for group in groups]


def _batch(sizes: Sizes, lengths: list[tuple[int, int]], draw: torch.Generator) -> Batch:
    table, whole = Table(sizes), max(text + speech + 1 for text, speech in lengths)
    tokens = torch.full((len(lengths), whole), table.pad)
    for row, (text, speech) in zip(tokens, lengths):
        row[:text] = torch.randint(sizes.text_rows, (text,), generator=draw)
        row[text : text + speech] = torch.randint(table.speech[0], table.speech[-1] + 1, (speech,), generator=draw)
    place = torch.arange(whole)
    prompt, ends = (torch.tensor(t) for t in zip(*((text, text + speech + 1) for text, speech in lengths)))
    mask: Tensor = place < ends[:, None]
    row, position = (mask & (place >= prompt[:, None])).nonzero(as_tuple=True)
    return {
        "tokens": tokens, "mask": mask, "positions": place.expand_as(tokens), "straight": True, "prompt": prompt,
        "row": row, "position": position,
        "speaker": torch.zeros(len(lengths), 0), "origin": torch.zeros(len(lengths), dtype=torch.long),
        "ids": [f"u{i}" for i in range(len(lengths))], "totals": {"tokens": [len(row), 0], "frames": [len(row), 0]},
    }  # fmt: skip


def count(batch: Batch) -> int:
    return int(batch["mask"].sum())


def training_step(sizes: Sizes | None = None, penalty: bool = False, rank1: bool = False, full: bool = False) -> Work:
    """A step of LoRA (`full`: of full fine-tuning) over one batch, with or without the penalty of EWC."""
    sizes = sizes or Sizes()
    learner, steps = _learner(sizes, penalty, rank1, full), batches(sizes)
    step, batch = _stepping(learner), steps[len(steps) // 2]

    def work() -> int:
        step(batch)
        return count(batch)

    return work


def full_pass(sizes: Sizes | None = None, optimise: bool = True) -> Work:
    """Full fine-tuning over some batches; without `optimise` only the gradients are made."""
    sizes = sizes or Sizes()
    step, steps = _stepping(_learner(sizes, penalty=False, rank1=False, full=True), optimise), batches(sizes)

    def work() -> int:
        for batch in steps:
            step(batch)
        return sum(map(count, steps))

    return work


def fisher_pass(sizes: Sizes | None = None, rank1: bool = False) -> Work:
    """The Fisher information of every weight, over the batches of `full_pass`."""
    sizes = sizes or Sizes()
    backbone, steps = model(sizes), batches(sizes)

    def work() -> int:
        estimated(backbone, steps, torch.Generator().manual_seed(0), Factored if rank1 else Whole)
        return sum(map(count, steps))

    return work


def _learner(sizes: Sizes, penalty: bool, rank1: bool, full: bool) -> Learner:
    backbone = model(sizes)
    strategies: dict[str, Strategy] = {"full": Full()} if full else {"lora": LoRA(rank=sizes.rank, alpha=2 * sizes.rank)}
    with tempfile.TemporaryDirectory() as folder:
        if penalty:
            path = Path(folder) / "fisher.safetensors"
            write(path, estimated(backbone, batches(sizes)[:1], torch.Generator().manual_seed(0), Factored if rank1 else Whole))
            strategies["ewc"] = EWC(rank1=rank1, decay=0.0, previous=str(path))

        def look(name: str) -> Study:
            none: Any = None
            return Study(backbone, none, none, Path(folder), 0, torch.Generator().manual_seed(0))

        claims = adapt(backbone, strategies, look)
        return Learner(backbone, strategies, claims, lambda groups: torch.optim.AdamW(groups, lr=1e-4))


def _stepping(learner: Learner, optimise: bool = True) -> Callable[[Batch], None]:
    parameters = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step(batch: Batch) -> None:
        torch.stack(list(learner.terms(batch).values())).sum().backward()
        if optimise:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class EWCCase(Case):
    """A step with and without the penalty; a Fisher pass beside a pass of full fine-tuning over the same utterances."""

    def __init__(self, sizes: Sizes | dict[str, Any] | None = None, step_at_most: float = 1.1, pass_at_most: float = 1.2) -> None:
        """`step_at_most`, `pass_at_most`: CPU seconds per token, of those without."""
        self.sizes = sizes if isinstance(sizes, Sizes) else Sizes(**(sizes or {}))
        self.step_at_most, self.pass_at_most = step_at_most, pass_at_most

    def sides(self) -> Mapping[str, Side]:
        step = partial(training_step, self.sizes)
        return {
            "lora": step,
            "lora+ewc": partial(step, penalty=True),
            "lora+ewc, rank 1": partial(step, penalty=True, rank1=True),
            "full": partial(step, full=True),
            "full+ewc": partial(step, penalty=True, full=True),
            "pass of full": partial(full_pass, self.sizes),
            "its gradients": partial(full_pass, self.sizes, optimise=False),
            "pass of Fisher": partial(fisher_pass, self.sizes),
        }

    def comparisons(self) -> Sequence[Comparison]:
        return [
            Comparison("lora+ewc", "lora", cost, at_most=self.step_at_most),
            Comparison("lora+ewc, rank 1", "lora", cost, at_most=self.step_at_most),
            Comparison("full+ewc", "full", cost, at_most=self.step_at_most),
            Comparison("pass of Fisher", "pass of full", cost, at_most=self.pass_at_most),
            Comparison("pass of Fisher", "its gradients", cost),
        ]
