"""Sets of several prepared corpora under one folder, for those who look at all recordings of a run."""

from collections.abc import Mapping
from pathlib import Path

from ttsadapt.artifacts import Artifact
from ttsadapt.data import manifest
from ttsadapt.files import digest, write_json


class Joined(Artifact):
    """A folder that holds names only: `manifest.read` finds each set where it lies. Nothing is copied."""

    def __init__(self, parts: Mapping[str, Path], cache: Path) -> None:
        """`parts`: {"<set>.<split>": the corpus's folder}, all of them below `cache`/corpora and prepared."""
        self.parts = {name: folder.name for name, folder in sorted(parts.items())}
        self.folder = Path(cache) / "corpora" / f"joined-{digest(self.parts)}"

    def build(self, folder: Path) -> None:
        write_json(folder / manifest.PARTS, self.parts)
