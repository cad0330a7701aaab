"""One benchmark from its config to bench.json and bench.md."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ttsadapt.bench.base import Case, as_dict, rounds, with_memory
from ttsadapt.bench.table import markdown, verdicts
from ttsadapt.files import write_json, write_text
from ttsadapt.provenance import machine
from ttsadapt.trainer import quiet


def bench(cfg: DictConfig) -> None:
    """Measure the case, print its tables, leave them in the run folder."""
    quiet()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    node: dict[str, Any] = OmegaConf.to_container(cfg.bench, resolve=True)  # type: ignore[assignment]
    case: Case = instantiate(node)
    done = rounds(case, cfg.pairs)
    if cfg.memory:
        done = with_memory(done, node, cfg.threads)
    folder = Path(HydraConfig.get().runtime.output_dir)
    table = markdown(case, done)
    write_json(folder / "bench.json", {"case": node, "comparisons": verdicts(case, done), "rounds": as_dict(done), "machine": machine()})
    write_text(folder / "bench.md", table)
    print(f"\n{table}\nwritten to {folder}")
