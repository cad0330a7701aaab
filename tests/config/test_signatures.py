import sys
from textwrap import dedent

import pytest

from ttsadapt.config.signatures import locate, signature


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own that would fail if it were imported."""
    name = f"static_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from .inner import Child as Exported\nraise RuntimeError('imported')\n")
    (folder / "inner.py").write_text(
        dedent("""
        from dataclasses import dataclass, field
        from typing import ClassVar, TYPE_CHECKING
        if TYPE_CHECKING:
            from .other import Elsewhere

        class Parent:
            def __init__(self, a: int, *, b: str = "x"): ...
            @classmethod
            def tiny(cls, size: int): ...
            @staticmethod
            def plain(first: int): ...
        class Child(Parent):
            pass
        class Passing(Parent):
            def __init__(self, c: float, **kwargs): super().__init__(**kwargs)
        class Open:
            def __init__(self, **kwargs): ...
        @dataclass
        class Point:
            x: float
            kind: ClassVar[str] = "p"
            tags: list[str] = field(default_factory=list)
            seen: int = field(init=False, default=0)
        @dataclass(frozen=True)
        class Point3(Point):
            z: float = 0.0
        Alias = Child
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    assert name not in sys.modules


def parameters(dotted):
    return {p.name: p.required for p in signature(dotted).parameters.values()}


def test_inherited_and_reexported(package):
    assert parameters(f"{package}.Exported") == {"a": True, "b": False}
    assert parameters(f"{package}.inner.Child") == {"a": True, "b": False}


def test_kwargs_lead_to_the_base(package):
    assert parameters(f"{package}.inner.Passing") == {"a": True, "b": False, "c": True}
    assert not signature(f"{package}.inner.Passing").open
    assert signature(f"{package}.inner.Open").open


def test_methods(package):
    assert parameters(f"{package}.inner.Parent.tiny") == {"size": True}
    assert parameters(f"{package}.inner.Parent.plain") == {"first": True}


def test_dataclass_fields(package):
    assert parameters(f"{package}.inner.Point3") == {"x": True, "tags": False, "z": False}


def test_unknown_names_have_no_signature(package):
    assert locate(f"{package}.inner.Nothing") is None
    assert signature("no_such_package_anywhere.Thing") is None


def test_a_library_is_read_but_not_imported():
    import subprocess

    code = """
import sys
from ttsadapt.config.signatures import signature
print(list(signature("torch.optim.AdamW").parameters)[:2], "torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['params', 'lr'] False"
