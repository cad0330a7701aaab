"""Picking parameters of the pretrained model, whether or not adapters have taken the place of its layers."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn


def is_bare(name: str) -> bool:
    """Whether the name is the pretrained model's own parameter, not an adapter's."""
    return ".lora_" not in name


def bare_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for n, p in module.named_parameters() if is_bare(f".{n}"))


def matching(module: nn.Module, globs: Sequence[str]) -> Iterable[nn.Parameter]:
    """Bare parameters whose original name (as before any adapter) matches one of the globs."""
    for name, parameter in module.named_parameters():
        original = name.replace(".base_layer.", ".")
        if is_bare(name) and any(fnmatchcase(original, g) for g in globs):
            yield parameter
