"""Which weights a released model has: by what they hold, read once and not again by every clip and every process."""

from functools import lru_cache
from pathlib import Path

from ttsadapt.config.paths import outputs
from ttsadapt.data.hashes import Hashes


@lru_cache(maxsize=64)
def hashed(path: Path) -> str:
    """Of a file or a folder, wherever it lies; remembered where runs share what they have built."""
    return Hashes(outputs() / "cache").of([path])
