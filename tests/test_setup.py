"""What `make` does before anything of the package is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "environment.py"


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_pip_is_configured_to_use_holds_for_uv(setup):
    listing = """global.index-url='https://one.example/index'
global.extra-index-url='https://two.example/index\\nhttps://three.example/index'
install.find-links='/wheels /more'
:env:.find-links='/mine'
global.quiet='1'
global.cert=''
"""
    assert setup.pip_settings(listing) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://one.example/index",
        "UV_INDEX": "https://two.example/index https://three.example/index",
        "UV_FIND_LINKS": "/mine",
    }


def test_a_python_that_lacks_something_does_not_fit(setup, monkeypatch, tmp_path):
    lists = '[project]\ndependencies = ["pytest>=1", "pip>=9999", "surely-not-installed", "other; python_version < \'3\'"]\n'
    (tmp_path / "pyproject.toml").write_text(lists + '[project.optional-dependencies]\ngpl = []\ndev = ["pytest<1"]\n')
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    assert setup.unmet() == ["pip>=9999", "surely-not-installed", "pytest<1"]


def test_an_old_python_is_told_in_one_line():
    run = f"exec(open({str(SCRIPT)!r}).read(), {{'__file__': {str(SCRIPT)!r}, '__name__': 'x'}})"
    code = f"import sys; sys.version_info = (3, 10, 1); {run}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Python") and done.stderr.count("\n") == 1
