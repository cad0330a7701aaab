"""What a `_target_` takes, read from source text: checking a config imports neither torch nor any module of ours."""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

_NO_ARGUMENTS = {"torch", "abc", "typing", "enum"}  # of their bases, of which a config needs to know nothing
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True, eq=False)
class Module:
    """A module's source: what it defines, and the dotted origin of what it imports."""

    name: str
    definitions: dict[str, Definition]
    imports: dict[str, str]


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: ast.expr | None
    required: bool
    module: Module
    """where the annotation's names mean something"""


@dataclass(frozen=True)
class Signature:
    parameters: dict[str, Parameter] = field(default_factory=dict)
    open: bool = False
    """takes **kwargs that lead nowhere we can see"""


@dataclass(frozen=True)
class Found:
    module: Module
    node: Definition
    method: bool = False


@lru_cache
def module_file(name: str) -> Path | None:
    """The file of a module. Only the top-level package is asked of the import system: deeper would import its parents."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [Path(p) for p in spec.submodule_search_locations or ()]
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for place in places:
        stem = place.joinpath(*rest)
        for file in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
            if file.is_file():
                return file
    return None


@lru_cache
def read_module(name: str) -> Module | None:
    file = module_file(name)
    if file is None:
        return None
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    definitions: dict[str, Definition] = {}
    imports: dict[str, str] = {}
    for statement in _top_level(ast.parse(file.read_bytes()).body):
        if isinstance(statement, ast.ImportFrom):
            origin = _absolute(package, statement)
            imports |= {a.asname or a.name: f"{origin}.{a.name}" for a in statement.names}
        elif isinstance(statement, ast.Import):
            imports |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in statement.names}
        elif isinstance(statement, _DEFINITIONS):
            definitions |= dict.fromkeys(_bound_names(statement), statement)
    return Module(name, definitions, imports)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):  # `if TYPE_CHECKING:` and optional imports
            yield from _top_level(statement.body + statement.orelse)
        else:
            yield statement


def _absolute(package: str, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parents = package.split(".")
    base = parents[: len(parents) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _bound_names(statement: Definition) -> list[str]:
    if isinstance(statement, ast.Assign):
        return [t.id for t in statement.targets if isinstance(t, ast.Name)]
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    return [statement.name]


@lru_cache
def locate(dotted: str) -> Found | None:
    """The definition behind a dotted name, through re-exports; None when its source cannot be found."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = read_module(".".join(parts[:cut]))
        if module is not None:
            return _member(module, parts[cut:])
    return None


def _member(module: Module, parts: list[str]) -> Found | None:
    first, *rest = parts
    if first in module.imports:
        return locate(".".join([module.imports[first], *rest]))
    node = module.definitions.get(first)
    if node is None:
        return None
    if not rest:
        return Found(module, node)
    if isinstance(node, ast.ClassDef):
        method = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == rest[0]), None)
        return Found(module, method, method=True) if method is not None else None
    return None


def resolve(module: Module, expression: ast.expr) -> Found | None:
    """The definition that a name in `module` stands for, when both are ours (installed libraries are too large to read for this)."""
    name = ast.unparse(expression)
    origin = module.imports.get(name.split(".")[0], module.name)
    if not name.replace(".", "").isidentifier() or _is_library(module.name) or _is_library(origin):
        return None
    return _member(module, name.split("."))


@lru_cache
def _is_library(name: str) -> bool:
    top = name.split(".")[0]
    file = module_file(top)
    return top != __name__.split(".")[0] and (file is None or "site-packages" in file.parts)


@lru_cache
def signature(dotted: str) -> Signature | None:
    """What calling `dotted` takes; None when its source cannot be found (then nothing is known about it)."""
    found = locate(dotted)
    if found is None:
        return None
    if isinstance(found.node, ast.ClassDef):
        return constructor(found.module, found.node)
    if isinstance(found.node, ast.FunctionDef):
        return _of_function(found.module, found.node, bound=found.method and not _decorated(found.node, "staticmethod"))
    return Signature(open=True)


def constructor(module: Module, node: ast.ClassDef) -> Signature:
    own = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
    if own is not None:
        taken = _of_function(module, own, bound=True)
        return _with_bases(taken, module, node) if taken.open and node.bases else taken
    if _decorated(node, "dataclass"):
        inherited = {k: v for base in reversed(node.bases) for k, v in _of_base(module, base).parameters.items()}
        return Signature(inherited | _fields(module, node))
    for base in node.bases:
        if (taken := _of_base(module, base)) != Signature():
            return taken
    return Signature()


def _with_bases(taken: Signature, module: Module, node: ast.ClassDef) -> Signature:
    """**kwargs of a constructor go to its bases."""
    bases = [_of_base(module, base) for base in node.bases]
    passed = {k: v for base in reversed(bases) for k, v in base.parameters.items()}
    return Signature(passed | taken.parameters, open=any(base.open for base in bases))


def _of_base(module: Module, base: ast.expr) -> Signature:
    name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    if module.imports.get(name.split(".")[0], "").split(".")[0] in _NO_ARGUMENTS:
        return Signature()
    found = _member(module, name.split("."))
    if found is None or not isinstance(found.node, ast.ClassDef):
        return Signature()
    return constructor(found.module, found.node)


def _of_function(module: Module, node: ast.FunctionDef, bound: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)][1 if bound else 0 :]
    taken = {a.arg: Parameter(a.arg, a.annotation, default is None, module) for a, default in pairs}
    return Signature(taken, open=arguments.kwarg is not None)


def _fields(module: Module, node: ast.ClassDef) -> dict[str, Parameter]:
    taken = {}
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        options = {k.arg: k.value for k in line.value.keywords} if isinstance(line.value, ast.Call) else {}
        hidden = isinstance(flag := options.get("init"), ast.Constant) and flag.value is False
        if ast.unparse(line.annotation).startswith(("ClassVar", "typing.ClassVar")) or hidden:
            continue
        called = isinstance(line.value, ast.Call) and ast.unparse(line.value.func).endswith("field")
        required = line.value is None or (called and not options.keys() & {"default", "default_factory"})
        taken[line.target.id] = Parameter(line.target.id, line.annotation, required, module)
    return taken


def _decorated(node: ast.ClassDef | ast.FunctionDef, name: str) -> bool:
    called = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(ast.unparse(d).rpartition(".")[2] == name for d in called)


def is_dataclass(node: Definition) -> bool:
    return isinstance(node, ast.ClassDef) and _decorated(node, "dataclass")
