"""Sets up .venv: `environment.py fits` says whether the running Python has all that pyproject.toml asks for, `install` sees to it.

Standard library only. What pip is configured to use (indexes, links, certificates) holds for uv as well.
"""

import ast
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"error: Python {sys.version.split()[0]} at {sys.executable}: 3.11, 3.12 or 3.13 is needed (make BOOT=/path/to/python3.12)")

import tomllib

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
EXTRAS = ("gpl", "dev")

# pip's option -> uv's variable and what separates several values there.
_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}


def unmet() -> list[str]:
    """Requirements of the project and its extras that the running Python does not meet."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in EXTRAS for r in project["optional-dependencies"][extra])]
    return [text for text in wanted if not _met(Requirement(text))]


def _met(requirement) -> bool:  # noqa: ANN001 -- packaging's, from wherever it could be imported
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def pip_settings(listing: str) -> dict[str, str]:
    """uv's environment for what `pip config list` prints; pip's own variables are among it (`:env:.`) and win."""
    lines = [line.partition("=") for line in listing.splitlines() if "=" in line]
    found: dict[str, str] = {}
    for key, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        name, separator = _UV.get(key.rpartition(".")[2], ("", ""))
        if name and str(text := ast.literal_eval(value)).strip():
            found[name] = separator.join(str(text).split())
    # pip takes the best version of all its indexes; uv by default stops at the first that has the name.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match"} | found


def install() -> None:
    if not PYTHON.exists():
        print("making .venv", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if _quiet(str(PYTHON), __file__, "fits") != 0 or _quiet(str(PYTHON), "-c", "import ttsadapt") != 0:
        target = f"{ROOT}[{','.join(EXTRAS)}]"
        print("installing into .venv (once; it is several GB)", flush=True)
        if not _with_uv(target):
            subprocess.run([str(PYTHON), "-m", "pip", "install", "-e", target], check=True)
    (VENV / ".installed").touch()


def _with_uv(target: str) -> bool:
    pip = [str(PYTHON), "-m", "pip"]
    if subprocess.run([*pip, "install", "--quiet", "uv"]).returncode:
        return False
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    settings = {k: v for k, v in pip_settings(listing).items() if k not in os.environ}
    command = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), "-e", target]
    return subprocess.run(command, env=os.environ | settings).returncode == 0


def _quiet(*command: str) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        try:
            install()
        except subprocess.CalledProcessError as error:
            sys.exit(f"error: {' '.join(map(str, error.cmd))} failed: its message is above")
    else:
        sys.exit(1 if unmet() else 0)
