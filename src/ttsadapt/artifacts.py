"""Things that are built once and shared: corpora, features, recognisers, pretrained bases, Fisher information."""

import time
from abc import ABC, abstractmethod
from pathlib import Path

from filelock import FileLock, Timeout

from ttsadapt.files import replacing_folder


class Artifact(ABC):
    """A folder that is a pure function of its key; it exists whole or not at all."""

    folder: Path

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Fill `folder`, a temporary place that becomes `self.folder` when this returns."""

    @property
    def done(self) -> bool:
        return self.folder.is_dir()

    def needs(self) -> tuple["Artifact", ...]:
        """What must exist before this can be built."""
        return ()

    def produce(self) -> None:
        with replacing_folder(self.folder) as temporary:
            self.build(temporary)

    @property
    def lock(self) -> FileLock:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.parent / f".{self.folder.name}.lock")


def ensure(*artifacts: Artifact) -> None:
    """Return when all exist. Processes that want the same things share the work: each takes what nobody is building yet."""
    missing = {a.folder: a for a in _closure(artifacts) if not a.done}
    while missing:
        built = [_try(a) for a in missing.values() if all(n.done for n in a.needs())]
        missing = {f: a for f, a in missing.items() if not a.done}
        if missing and not any(built):
            time.sleep(0.2)


def _closure(artifacts: tuple[Artifact, ...]) -> list[Artifact]:
    ordered: list[Artifact] = []
    for artifact in artifacts:
        ordered += [*_closure(artifact.needs()), artifact]
    return ordered


def _try(artifact: Artifact) -> bool:
    try:
        with artifact.lock.acquire(timeout=0):
            if not artifact.done:
                artifact.produce()
            return True
    except Timeout:  # another process is at it: see what else there is to do
        return False
