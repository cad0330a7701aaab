"""The run that a command is about, found before anything heavy is imported."""

from pathlib import Path

from omegaconf import DictConfig

from ttsadapt.config.identity import run_folder, status
from ttsadapt.errors import UserError
from ttsadapt.files import read_json


def find(cfg: DictConfig) -> Path:
    """The folder that `run=` names: a path, or <study>/<run id> below the outputs; without `run`, that of the same overrides.

    Of a sequence it is the run of its last stage.

    UserError when there is none, or when it has not finished.
    """
    folders = [run_folder(cfg)] if cfg.run is None else [Path(cfg.run).expanduser(), Path(cfg.paths.outputs) / cfg.run]
    folder = next((f for f in folders if (f / "config.yaml").is_file()), None)
    if folder is None:
        there = sorted(
            f"{p.parent.parent.name}/{p.parent.name}"
            for p in Path(cfg.paths.outputs).glob("*/*/summary.json")
            if status(p.parent) == "finished"
        )
        asked = "run has no value, and these overrides have not been trained" if cfg.run is None else f"run={cfg.run}: no such run"
        raise UserError(f"{asked}: give run=<study>/<run id>; there are {', '.join(there[:6]) or 'none'}{' ...' if len(there) > 6 else ''}")
    if (how := status(folder)) != "finished":
        why = f" ({read_json(folder / 'summary.json').get('error', 'no reason given')})" if how == "failed" else ""
        raise UserError(f"the run {folder} has not finished{why}: run `ttsadapt train` with its overrides first")
    stages = read_json(folder / "summary.json").get("stages")
    return Path(cfg.paths.outputs) / stages[-1]["run"] if stages else folder
