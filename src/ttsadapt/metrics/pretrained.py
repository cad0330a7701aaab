"""Released models that judge: found on this machine or not at all. Nothing is ever downloaded while a run scores."""

from functools import lru_cache
from pathlib import Path

from ttsadapt.metrics.weights import hashed


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


@lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """Hash of a located model's files, "" when it is not here."""
    folder = located(path)
    return "" if folder is None else hashed(folder)


def named(path: str) -> str:
    """How a table calls the model: the hub's name of it, or the folder's own."""
    return path if located(path) is None or not Path(path).expanduser().is_dir() else Path(path).expanduser().resolve().name
