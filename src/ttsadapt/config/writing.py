"""What the user wants written where nothing can be: said in one line. Every other OSError is a bug and keeps its traceback."""

import errno
import os
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ttsadapt.config import paths

_OUTPUTS = "set TTSADAPT_OUTPUTS or paths.outputs=... to a folder that can"
_FOLDERS = {
    "paths.outputs": _OUTPUTS,
    "paths.cache": "give another with paths.cache=...",
    "scores_to": "give another with scores_to=...",
    "wavs": "give another place with scores_to=...",
}
_FILES = {key: f"give another with {key}=..." for key in ("out", "to")}
_FULL = (errno.ENOSPC, errno.EDQUOT)


def unwritable(error: BaseException, cfg: DictConfig) -> str | None:
    """One line when `error` comes of a place that `cfg` names for what is written, and that cannot be; None for every other error.

    The place is tried: a file that is missing among the outputs is no fault of theirs.
    """
    for key, cure in (_FOLDERS | _FILES).items():
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and (why := _why(error, _absolute(value), key in _FILES)):
            return f"{value} cannot be written ({why}): {cure}"
    return None


def no_folder(error: BaseException) -> str | None:
    """The same for the folder of a job, before there is one: beside it Hydra writes nothing, it only reads configs."""
    name = error.filename if isinstance(error, OSError) else None
    if not isinstance(name, str) or any(
        _absolute(name).is_relative_to(f) for f in (paths.conf(), paths.root() / "experiments", *paths.own())
    ):
        return None
    why = _refused(_absolute(name))
    return f"{name} cannot be written ({why}): {_OUTPUTS}" if why else None


def _absolute(value: str) -> Path:
    return Path(os.path.abspath(Path(value).expanduser()))


def _why(error: BaseException | None, place: Path, file: bool) -> str | None:
    """Why `place` cannot be written, when that is what an OSError in the chain of `error` is about."""
    while error is not None:
        names = (error.filename, error.filename2) if isinstance(error, OSError) else ()
        for name in (_absolute(os.fsdecode(n)) for n in names if isinstance(n, str | bytes)):
            if place in (name, *name.parents) or name in place.parents or (file and name.parent == place.parent):
                return _refusal(error, place, name, file)  # type: ignore[arg-type]
        error = error.__cause__ or error.__context__
    return None


def _refusal(error: OSError, place: Path, name: Path, file: bool) -> str | None:
    if error.errno in _FULL:
        return "the disk is full"
    if file and isinstance(error, IsADirectoryError):
        return "it is a folder"
    folders = [place.parent if file else place, *([name.parent] if place in name.parents else [])]
    return next((why for why in map(_refused, folders) if why), None)


def _refused(folder: Path) -> str | None:
    """What the system says to a new file in `folder`, or in the nearest folder above that is there; None when it takes one."""
    there = next(f for f in (folder, *folder.parents) if f.exists())
    if not there.is_dir():
        return f"{there} is a file"
    try:
        if there == folder:
            tempfile.TemporaryFile(dir=there).close()
        else:
            os.rmdir(tempfile.mkdtemp(dir=there))
    except OSError as error:
        return f"{there} takes no files: {error.strerror}"
    return None
