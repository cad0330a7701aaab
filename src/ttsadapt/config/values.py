"""Does a value from a yaml file fit an annotation? Works on source text, with no type imported."""

import ast
import operator
import re
from typing import Any

from ttsadapt.config.signatures import Found, Module, is_dataclass, resolve

_SEQUENCES = {"list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Collection", "List", "Tuple"}
_MAPPINGS = {"dict", "Mapping", "Dict", "MutableMapping"}
_PLAIN = {"int", "float", "bool", "str", "Path", "None", "Any", "object", "Literal", "Optional", "Union", "Annotated"}
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def accepts(value: Any, wanted: ast.expr | None, module: Module) -> bool:
    """True when `value` (plain containers) can be passed where `wanted` is annotated in `module`.

    A class of this or another package wants a node with a `_target_`; `Annotated[int, "> 0 and <= 8"]` also checks the range.
    Names whose source cannot be found accept everything.
    """
    if wanted is None:
        return True
    if isinstance(wanted, ast.Constant):
        return value is None if wanted.value is None else accepts(value, _quoted(wanted), module)
    if isinstance(wanted, ast.BinOp):
        return _any_of([wanted.left, wanted.right], value, module)
    if isinstance(wanted, ast.Subscript):
        return _parametrised(value, _last_name(wanted.value), _arguments(wanted), module)
    return _named(value, wanted, module)


def _named(value: Any, wanted: ast.expr, module: Module) -> bool:
    name = _last_name(wanted)
    if name in ("int", "float", "bool", "str", "Path"):
        kinds = {"int": int, "float": int | float, "bool": bool, "str": str, "Path": str}[name]
        return isinstance(value, kinds) and (name == "bool") == isinstance(value, bool)
    if name in ("Any", "object"):
        return True
    if name in _SEQUENCES:
        return isinstance(value, list | tuple)
    if name in _MAPPINGS:
        return isinstance(value, dict)
    found = resolve(module, wanted)
    return found is None or _defined(value, found)


def _defined(value: Any, found: Found) -> bool:
    if isinstance(found.node, ast.Assign | ast.AnnAssign):  # a type alias
        return found.node.value is None or accepts(value, found.node.value, found.module)
    if is_enum(found):
        return isinstance(value, str | int)
    if is_dataclass(found.node):
        return isinstance(value, dict)
    return not isinstance(found.node, ast.ClassDef) or (isinstance(value, dict) and "_target_" in value)


def is_enum(found: Found) -> bool:
    return isinstance(found.node, ast.ClassDef) and any(_last_name(b).endswith("Enum") for b in found.node.bases)


def _parametrised(value: Any, name: str, arguments: list[ast.expr], module: Module) -> bool:
    if name == "Literal":
        return any(value == a.value and type(value) is type(a.value) for a in arguments if isinstance(a, ast.Constant))
    if name == "Optional":
        return value is None or accepts(value, arguments[0], module)
    if name == "Union":
        return _any_of(arguments, value, module)
    if name == "Annotated":
        rules = [a.value for a in arguments[1:] if isinstance(a, ast.Constant)]
        return accepts(value, arguments[0], module) and all(_in_range(value, str(rule)) for rule in rules)
    if name in ("tuple", "Tuple") and not _is_ellipsis(arguments[-1]):
        fits = isinstance(value, list | tuple) and len(value) == len(arguments)
        return fits and all(accepts(v, a, module) for v, a in zip(value, arguments))
    if name in _SEQUENCES:
        return isinstance(value, list | tuple) and all(accepts(v, arguments[0], module) for v in value)
    if name in _MAPPINGS:
        items = value.items() if isinstance(value, dict) else ()
        fits = all(accepts(k, arguments[0], module) and accepts(v, arguments[1], module) for k, v in items)
        return isinstance(value, dict) and fits
    return True  # Callable, type and other generics: code, not configuration


def _any_of(options: list[ast.expr], value: Any, module: Module) -> bool:
    """A foreign class beside plain types (`float | Tensor`) must not open the door to every value."""
    known = [o for o in options if is_plain(o, module) or resolve(module, o) is not None]
    return any(accepts(value, o, module) for o in known or options) or (isinstance(value, dict) and "_target_" in value)


def is_plain(wanted: ast.expr | None, module: Module) -> bool:
    """Can a yaml file give this? What it cannot (a module, a callable) may be handed over by the code at run time."""
    if wanted is None:
        return True
    if isinstance(wanted, ast.Constant):
        return wanted.value is None or is_plain(_quoted(wanted), module)
    if isinstance(wanted, ast.BinOp):
        return is_plain(wanted.left, module) or is_plain(wanted.right, module)
    if isinstance(wanted, ast.Subscript):
        name, arguments = _last_name(wanted.value), _arguments(wanted)
        if name in ("Literal", "Annotated"):
            return name == "Literal" or is_plain(arguments[0], module)
        return name in _PLAIN | _SEQUENCES | _MAPPINGS and all(is_plain(a, module) or _is_ellipsis(a) for a in arguments)
    if _last_name(wanted) in _PLAIN | _SEQUENCES | _MAPPINGS:
        return True
    found = resolve(module, wanted)
    alias = found is not None and isinstance(found.node, ast.Assign | ast.AnnAssign)
    return alias and found is not None and is_plain(found.node.value, found.module)  # type: ignore[union-attr]


def spelt(wanted: ast.expr, module: Module) -> str:
    """`wanted` for people: aliases, ranges and choices written out."""
    if isinstance(wanted, ast.Constant):
        return "null" if wanted.value is None else spelt(_quoted(wanted), module)
    if isinstance(wanted, ast.BinOp):
        return f"{spelt(wanted.left, module)} or {spelt(wanted.right, module)}"
    if isinstance(wanted, ast.Subscript) and _last_name(wanted.value) == "Literal":
        return " or ".join(str(a.value) for a in _arguments(wanted) if isinstance(a, ast.Constant))
    if isinstance(wanted, ast.Subscript) and _last_name(wanted.value) == "Annotated":
        first, *rules = _arguments(wanted)
        return " ".join([spelt(first, module), *(str(r.value) for r in rules if isinstance(r, ast.Constant))])
    found = resolve(module, wanted)
    if found is not None and isinstance(found.node, ast.Assign):
        return spelt(found.node.value, found.module)
    return ast.unparse(wanted)


def _in_range(value: Any, rule: str) -> bool:
    """`rule` as in "> 0" or ">= 0 and < 1"; None passes."""
    bounds = re.findall(r"([<>]=?)\s*(-?[\d.]+)", rule)
    return value is None or all(_COMPARE[sign](value, float(bound)) for sign, bound in bounds)


def _quoted(annotation: ast.Constant) -> ast.expr:
    """What stands inside an annotation written as a string."""
    return ast.parse(str(annotation.value), mode="eval").body


def _last_name(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]


def _arguments(wanted: ast.Subscript) -> list[ast.expr]:
    return list(wanted.slice.elts) if isinstance(wanted.slice, ast.Tuple) else [wanted.slice]


def _is_ellipsis(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Constant) and expression.value is ...
