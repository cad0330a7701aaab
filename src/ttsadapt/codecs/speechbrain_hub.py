"""Models that speechbrain publishes, from its hub or from a folder."""

import importlib
from pathlib import Path
from typing import Any

from ttsadapt.errors import UserError


def from_speechbrain(module: str, name: str, source: str) -> Any:
    """A pretrained model of speechbrain; UserError in one line when the folder or the hub does not give it."""
    kind = getattr(importlib.import_module(module), name)
    try:
        return kind.from_hparams(source=source, savedir=source if Path(source).is_dir() else None, run_opts={"device": "cpu"})
    except Exception as error:  # the hub, hyperpyyaml and torch each raise their own
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"speechbrain cannot load {source!r} ({told}): give the id of a model on the hub, or a folder with its hyperparams.yaml"
        ) from error
