"""The authors' tensors: sizes and cases come from the files alone."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]


def folder() -> Path:
    """`cosyvoice/` of the golden files; skips the test where there are none."""
    given = Path(os.environ.get("TTSADAPT_GOLDEN", "../shared/golden"))
    found = (given if given.is_absolute() else ROOT / given) / "cosyvoice"
    if not found.is_dir():
        pytest.skip(f"{found} is absent: set TTSADAPT_GOLDEN to the folder with the authors' tensors")
    return found


def manifest(name: str) -> dict:
    return json.loads((folder() / "manifest.json").read_text())["models"][name]


def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(folder() / f"{name}.io.safetensors")


def full() -> dict:
    """`keys` and `counts` at official size."""
    return json.loads((folder() / "keys_full.json").read_text())


def norms(module: torch.nn.Module, place) -> dict[str, float]:
    """Gradient norms under the authors' names."""
    return {place(n).name: float(p.grad.norm()) for n, p in module.named_parameters() if p.grad is not None}


def assert_norms(module: torch.nn.Module, place, wanted: dict[str, float]) -> None:
    got = norms(module, place)
    for name, value in wanted.items():
        if value is not None and value > 1e-5:  # below that it is zero up to rounding
            assert got[name] == pytest.approx(value, rel=1e-3), name
