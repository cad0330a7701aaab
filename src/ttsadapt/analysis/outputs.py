"""Block outputs of a frozen backbone, small enough to keep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.analysis.fisher import resting
from ttsadapt.analysis.ranking import Settings
from ttsadapt.backbones.base import Backbone, to_device
from ttsadapt.bars import Bar
from ttsadapt.data.features import FeatureSet
from ttsadapt.errors import ConfigError


def block_outputs(backbone: Backbone, features: FeatureSet, group: str, settings: Settings) -> dict[str, Tensor]:
    """{utterance: (T, L, C)} outputs of L blocks at speech positions, layer norm without affine, averaged `pool` by `pool`.

    ConfigError when the blocks are not of one rate and width, or when their outputs take more memory than they may.
    """
    device = next(backbone.parameters()).device
    blocks = list(backbone.blocks[group].values())
    states: dict[str, Tensor] = {}
    size = 0
    with torch.no_grad(), resting(backbone), _listening(blocks) as heard:
        progress = Bar(total=len(features.ids), desc=f"outputs of {group} blocks", unit="utt", leave=False)
        for batch in features.batches(settings.frames):
            batch = to_device(batch, device)
            backbone(batch)
            stacked = torch.stack([F.layer_norm(x.float(), x.shape[-1:]) for x in _alike(heard, group)], 1)  # (B, L, T, C)
            for i, state, mask in zip(batch["ids"], stacked, backbone.block_mask(batch, group)):
                if mask.any():
                    states[i] = averaged(state[:, mask], settings.pool).to("cpu", torch.float16 if settings.half else None)
                    size += states[i].nbytes
            progress.update(len(batch["ids"]))
            if size > settings.memory * 2**30:
                raise ConfigError(f"layer analysis: block outputs exceed memory={settings.memory} GiB: lower utterances, or set half=true")
        progress.close()
    return states


def _alike(heard: Sequence[Tensor], group: str) -> Sequence[Tensor]:
    """Weights over blocks of several rates or widths would compare what cannot be compared."""
    sizes = list(dict.fromkeys(tuple(x.shape[1:]) for x in heard))
    if len(sizes) > 1:
        told = " and ".join(f"{positions} x {width}" for positions, width in sizes[:2])
        raise ConfigError(
            f"group={group}: its blocks are not of one rate and width ({told} for one batch): rank them in groups of their own"
        )
    return heard


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


def averaged(state: Tensor, pool: int) -> Tensor:
    """(L, T, C) -> (ceil(T / pool), L, C); the last mean is over what is left."""
    return F.avg_pool1d(state.transpose(1, 2), pool, pool, ceil_mode=True).permute(2, 0, 1).contiguous()
