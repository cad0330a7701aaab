"""A whole training step of HyperTTS's backbone with a hypernetwork's adapters and with static ones, every utterance in another voice.

Weights and features are drawn from seeds: the cost does not depend on what a model says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ttsadapt.backbones.base import Batch, distinct
from ttsadapt.backbones.fastspeech2_frontend import real
from ttsadapt.backbones.hypertts import HyperTTSBackbone
from ttsadapt.backbones.pitch import SCALES
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.base import Strategy, Study

N_MELS = 80


@dataclass(frozen=True)
class StepSizes:
    """The backbone's, as in its config, and those of a batch."""

    width: int = 256
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    hidden: int = 1024
    kernel: int = 9
    voice: int = 256
    phones: int = 60
    """of an utterance"""
    frames: int = 7
    """of a phone"""
    speakers: int = 16
    """utterances of a step"""


def step(sizes: StepSizes, strategy: Strategy) -> Callable[[], int]:
    """A forward and a backward pass, which give the frames they went through."""
    learner, batch = _learner(sizes, strategy), _batch(sizes)

    def run() -> int:
        learner.zero_grad()
        torch.stack(list(learner.terms(batch).values())).sum().backward()
        return sizes.speakers * sizes.phones * sizes.frames

    return run


def _learner(sizes: StepSizes, strategy: Strategy) -> Learner:
    torch.manual_seed(0)
    frontend: Any = SimpleNamespace(
        sample_rate=16000, mel=SimpleNamespace(n_mels=N_MELS), statistics=SimpleNamespace(size=sizes.voice), emotions=(),
        table=SimpleNamespace(size=100), scales={"energy_range": torch.tensor([0.0, 1.0])}, learn_durations=False,
    )  # fmt: skip  # all that the model itself asks of one
    backbone = HyperTTSBackbone(
        frontend, width=sizes.width, encoder_blocks=sizes.encoder_blocks, decoder_blocks=sizes.decoder_blocks, hidden=sizes.hidden,
        kernel=sizes.kernel, vocoder=torch.nn.Identity(),
    )  # fmt: skip

    def look(name: str) -> Study:
        target: Any = SimpleNamespace(ids=["u0"], collate=lambda ids: {"speaker": torch.zeros(len(ids), sizes.voice)})
        return Study(backbone, target, target, Path(), 0, torch.Generator().manual_seed(0))

    strategies = {"it": strategy}
    claims = adapt(backbone, strategies, look)
    return Learner(backbone, strategies, claims, lambda groups: torch.optim.AdamW(groups, lr=1e-4))


def _batch(sizes: StepSizes) -> Batch:
    draw, rows, length = torch.Generator().manual_seed(1), sizes.speakers, sizes.phones * sizes.frames

    def drawn(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=draw)

    batch: Batch = {
        "phones": torch.randint(1, 100, (rows, sizes.phones), generator=draw),
        "durations": torch.full((rows, sizes.phones), sizes.frames),
        "mel": drawn(length, N_MELS), "energy": drawn(length), "pitch": drawn(length), "voiced": drawn(length) > 0.3,
        "cwt": drawn(length, SCALES), "moments": drawn(2), "speaker": drawn(sizes.voice), "emotion": torch.zeros(rows, dtype=torch.long),
        "origin": torch.zeros(rows, dtype=torch.long), "ids": [f"u{i}" for i in range(rows)],
        "totals": {"frames": [rows * length, 0], "phones": [rows * sizes.phones, 0], "utterances": [rows, 0]},
    }  # fmt: skip
    counts = {"phone": [sizes.phones] * rows, "frame": [length] * rows}
    return batch | real(counts) | {f"{k}_counts": n for k, n in counts.items()} | distinct(batch["speaker"], batch["ids"])
