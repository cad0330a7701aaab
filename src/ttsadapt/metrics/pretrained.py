"""Released models that judge: found on this machine or not at all. Nothing is ever downloaded while a run scores."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from ttsadapt.errors import CheckpointError
from ttsadapt.metrics.weights import hashed

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TRAINING_ONLY = ("masked_spec_embed",)
"""ends of the names of weights that nothing is judged with, and that some released models lack"""
_INSTEAD = "download it again, or give the folder of a model that was trained for this task"


@lru_cache(maxsize=64)
def located(path: str) -> Path | None:
    """The folder `path`, or the one that the hub's cache holds of the repository of that name; None when there is neither."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def lacking(path: str, key: str, files: tuple[str, ...] = ("config.json",)) -> str | None:
    """One line when the model at `path` is not here or lacks one of `files`; `key` is where a user names another folder."""
    folder = located(path)
    if folder is None:
        what = f"there is no folder {path}" if path.startswith((".", "/", "~")) else f"{path} is not on this machine"
        return f"{what}: `hf download {path}` puts it into the hub's cache where there is a network, or give {key}=<folder>"
    absent = next((f for f in files if not (folder / f).is_file()), None)
    return None if absent is None else f"{folder} has no {absent}: download {path} again, or give {key}=<folder>"


def incomplete(path: str, key: str) -> str | None:
    """As `lacking`, for a model of transformers that hears audio: its config, its features, its weights in any of their layouts."""
    if line := lacking(path, key, ("config.json", "preprocessor_config.json")):
        return line
    folder = located(path)
    there = folder is not None and any((folder / name).is_file() for name in _WEIGHTS)
    return None if there else f"{folder} has no weights ({_WEIGHTS[0]}): download {path} again, or give {key}=<folder>"


def loaded(auto: Any, path: str) -> Any:
    """The located model, by one of transformers' Auto classes, in float32 and set to judge.

    CheckpointError when it cannot be read, or has not every weight that the class judges with: transformers would draw those at random.
    """
    folder = located(path)
    assert folder is not None, "missing comes first"
    try:
        model, found = auto.from_pretrained(str(folder), local_files_only=True, dtype="float32", output_loading_info=True)
    except Exception as error:  # of a dozen kinds: OSError, ValueError, RuntimeError of sizes, those of safetensors ...
        raise CheckpointError(f"{folder} is no model for {auto.__name__} ({' '.join(str(error).split())[:200]}): {_INSTEAD}") from error
    if absent := sorted(name for name in found["missing_keys"] if not name.endswith(_TRAINING_ONLY)):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{folder} has no {absent[0]}{more}, without which {type(model).__name__} cannot judge: {_INSTEAD}")
    return model.eval()


@lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """Hash of a located model's files, "" when it is not here."""
    folder = located(path)
    return "" if folder is None else hashed(folder)


def named(path: str) -> str:
    """How a table calls the model: the hub's name of it, or the folder's own."""
    return path if located(path) is None or not Path(path).expanduser().is_dir() else Path(path).expanduser().resolve().name
