"""Which run is this? A hash of everything that can change its numbers, and of nothing else."""

import re
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from omegaconf import DictConfig, OmegaConf

from ttsadapt.config.base import base_config
from ttsadapt.config.paths import PACKAGE
from ttsadapt.config.schema import TrainConfig
from ttsadapt.config.stages import stage_configs, titles
from ttsadapt.data.hashes import Hashes
from ttsadapt.errors import UserError
from ttsadapt.files import content_hash, digest, read_json, write_json

INFRASTRUCTURE = {"study", "paths", "logger", "resume", "report", "prefix"}
INFRASTRUCTURE_OF_TRAINER = {"devices", "accelerator", "strategy", "compile", "gradient_checkpointing", "threads", "progress"}
_WORKERS = {"workers", "num_workers", "processes", "cache_folder"}
_ONLY_TRAINING = {"optimizer", "scheduler", "trainer", "batch_frames", "remember", "prefix", "validation", "checkpoint"}
_OFF: Final[dict[str, Any]] = {"stages": [], "remember": ["source"], "only": {"speaker": None, "emotion": None, "language": None}}
"""what changes nothing is no part of an identity: runs made before there were stages stay known"""
_OFF_CHECKPOINT: Final[dict[str, Any]] = {"mode": "auto", "score": "last", "patience": None}
_LARGE = 8 << 20  # bytes from which on a content hash is remembered

Status = Literal["missing", "finished", "failed", "stopped", "partial"]


def run_id(cfg: DictConfig) -> str:
    """12 hexadecimal digits. Strategies are a dict, so their order is no part of it."""
    if cfg.get("stages"):
        scored = {name: _resolved(cfg, name) for name in ("metric", "evaluation")}
        return digest([[run_id(stage) for stage in stage_configs(cfg)], titles(cfg), _by_content(scored, Path(cfg.paths.cache))])
    names = {f.name for f in fields(TrainConfig) if f.name in cfg} - INFRASTRUCTURE - {"previous"}
    core = {name: _resolved(cfg, name) for name in names}
    core = {k: v for k, v in core.items() if k not in _OFF or v != _OFF[k]}
    if not (core.get("validation") or {}).get("metric"):
        core.pop("validation", None)
    if core.get("checkpoint") == _OFF_CHECKPOINT | {"monitor": f"valid/{cfg.train_on}/loss"}:
        del core["checkpoint"]
    core["trainer"] = {k: v for k, v in core["trainer"].items() if k not in INFRASTRUCTURE_OF_TRAINER}
    if (cfg.get("prefix") or {}).get("half"):  # the one way of keeping states that changes numbers
        core["prefix"] = {"half": True}
    if not core["strategy"]:  # nothing trains: what only training reads cannot change a number
        core = {k: v for k, v in core.items() if k not in _ONLY_TRAINING}
    base = base_config(cfg)
    core["base"] = run_id(base) if base is not None else None
    if cfg.get("previous") is not None and base is not None:
        core = _renamed(core, str(run_folder(base)), core["base"])  # what reads its files reads those of that run, wherever they lie
    return digest(_by_content(core, Path(cfg.paths.cache)))


def run_folder(cfg: DictConfig) -> Path:
    """<outputs>/<study>/<run id>, absolute."""
    return Path(cfg.paths.outputs).absolute() / cfg.study / run_id(cfg)


def status(folder: Path) -> Status:
    """How far the run in `folder` came; "partial": started, and either at work or killed outright."""
    if not (folder / "summary.json").is_file():
        return "partial" if (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir() else "missing"
    try:
        said = read_json(folder / "summary.json").get("status")
    except UserError:  # cut short by something that does not write through `files`: run it again
        return "partial"
    return said if said in ("finished", "failed", "stopped") else "partial"


@lru_cache
def code_hash() -> str:
    """Hash of the package's sources, comments included."""
    sources = sorted(PACKAGE.rglob("*.py"))
    return digest([[str(f.relative_to(PACKAGE)), content_hash(f)] for f in sources])


def made_by_other_code(folder: Path) -> bool:
    """Was the run made by sources that differ from these? A run that does not say counts as other."""
    provenance = folder / "provenance.json"
    return not provenance.is_file() or read_json(provenance).get("code") != code_hash()


def _renamed(value: Any, folder: str, name: str) -> Any:
    if isinstance(value, dict):
        return {k: _renamed(v, folder, name) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, folder, name) for v in value]
    return value.replace(folder, name) if isinstance(value, str) else value


def _resolved(cfg: DictConfig, name: str) -> Any:
    value = cfg[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _by_content(value: Any, cache: Path) -> Any:
    """Input paths by what lies there, so that moving data changes nothing and editing it does; workers left out."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _WORKERS}
        return {k: _content(v, cache) if _is_path(k, v) else _by_content(v, cache) for k, v in kept.items()}
    return [_by_content(v, cache) for v in value] if isinstance(value, list) else value


def _is_path(key: Any, value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"(.*_)?path", str(key)))


def _content(value: str, cache: Path) -> str:
    path = Path(value).expanduser()
    if not path.exists():  # a name on a hub, or a mistake that the job itself reports
        return value
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    facts = [(str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    if sum(size for _, size, _ in facts) < _LARGE:
        return content_hash(path)
    if path.is_dir():  # file by file: one that changes is read again, not all
        return Hashes(cache).of([path])
    known = cache / "hashes" / f"{digest([str(path.resolve()), facts])}.json"
    if not known.is_file():
        write_json(known, content_hash(path))
    return read_json(known)
