"""Where the config files and the outputs lie, in a checkout and in an installed wheel."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """The folder of a checkout, or None when the package was installed from a wheel."""
    folder = PACKAGE.parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "conf").is_dir() else None


def root() -> Path:
    """The folder that holds conf/ and experiments/: the checkout, else the package (the wheel carries both)."""
    return checkout() or PACKAGE


def conf() -> Path:
    return root() / "conf"


def outputs() -> Path:
    """$TTSADAPT_OUTPUTS, else outputs/ of the checkout, else outputs/ of the current folder."""
    if chosen := os.environ.get("TTSADAPT_OUTPUTS"):
        return Path(chosen).expanduser().resolve()
    return (checkout() or Path.cwd()) / "outputs"


def own() -> list[Path]:
    """Folders with the user's own config groups, such as experiments/: $TTSADAPT_CONFIG_DIR, separated as in $PATH."""
    return [Path(p).expanduser().resolve() for p in os.environ.get("TTSADAPT_CONFIG_DIR", "").split(os.pathsep) if p]
