"""Plain text on the command line: what is quoted for the shell need not be quoted for Hydra's grammar as well."""

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from ttsadapt.config.schema import SCHEMAS
from ttsadapt.config.signatures import signature
from ttsadapt.config.values import accepts

_OVERRIDE = re.compile(r"(?P<key>\+{0,2}[\w./@$-]+)=(?P<value>.+)", re.DOTALL)
_MANY = ("-m", "--multirun", "hydra.mode=MULTIRUN")
_CONTAINERS = {"[": "]", "{": "}"}


def plain(arguments: list[str], command: str) -> list[str]:
    """The arguments of a command, each text that Hydra cannot read as it stands put in quotes: `text=What's up?`, `data.path=/home/Müller`.

    Where the command's own key takes nothing but text, commas in a sentence and numbers are text, too. What Hydra reads as it was meant
    is left alone, and so are lists and mappings that are not closed.
    """
    parser, many = OverridesParser.create(), any(a in _MANY for a in arguments)
    return [_plain(argument, parser, command, many) for argument in arguments]


def _plain(argument: str, parser: OverridesParser, command: str, many: bool) -> str:
    found = None if argument.startswith("-") else _OVERRIDE.fullmatch(argument)
    if found is None:
        return argument
    key, value = found["key"], found["value"]
    try:
        override = parser.parse_override(argument)
        meant = not _is_text(key, command) or _reads(override, value, many)
    except HydraException:
        meant = _unclosed(value) or (many and "," in value)
    return argument if meant else f"{key}={quoted(value)}"


def _is_text(key: str, command: str) -> bool:
    """Does this key of the command's own take texts and nothing else but null?"""
    taken = signature(f"{SCHEMAS[command].__module__}.{SCHEMAS[command].__name__}")
    parameter = taken.parameters.get(key) if taken is not None else None
    if parameter is None:
        return False
    text, *others = (accepts(value, parameter.annotation, parameter.module) for value in ("any text", 1, ["a"], {"a": 1}))
    return text and not any(others)


def _reads(override: Override, value: str, many: bool) -> bool:
    """Has Hydra read a text (or null, which is none) where a text is wanted? Commas without a space are more likely a sweep without -m."""
    if override.is_sweep_override():
        return many or not re.search(r"\s", value)
    return many or override._value is None or isinstance(override._value, str | QuotedString)


def _unclosed(value: str) -> bool:
    """A list or a mapping that was begun: its mistake is worth a message."""
    closing: Any = _CONTAINERS.get(value[0])
    return closing is not None and (value.endswith(closing) or value.count(value[0]) != value.count(closing))


def quoted(value: str) -> str:
    """A string for Hydra's override grammar, where a backslash means something only before a quote."""
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'
