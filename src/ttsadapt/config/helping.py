"""`ttsadapt <command> --help`, read off the yaml files: what they say of themselves in their comments is written nowhere else."""

import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ttsadapt.config import paths
from ttsadapt.config.options import options

_WIDTH, _COLUMN = 140, 36
_KEY = re.compile(r"(?P<indent> *)(?P<name>[\w]+):(?: +(?P<value>(?!#).*?))?(?: +# (?P<says>.*))?")
_MORE = """\
`ttsadapt {command} ... --cfg job` shows the whole config that a line means, and stops; -m runs every combination of
comma-separated values; --hydra-help has the other options"""


def told(command: str, arguments: Sequence[str] = ()) -> str:
    """The help of a command: its purpose, its own keys, its groups; with `group=option` among the arguments, the keys of that option."""
    if asked := [f"{group}={option}:\n{keys}" for group, option, keys in _asked(arguments)]:
        return "\n\n".join(asked)
    text = _read(paths.conf() / f"{command}.yaml")
    defaults = [d for d in yaml.safe_load(text).get("defaults", ()) if not str(d).startswith("{'override ")]
    groups = {name: chosen for d in defaults if isinstance(d, dict) for name, chosen in d.items()}
    only = {name for name in groups if options(name) == ["default"]}  # nothing to choose: their keys are the command's
    keys = [*_keys(text, without={*groups, "hydra"}), *(line for name in only for line in _option(name, "default"))]
    parts = [f"ttsadapt {command} [key=value ...]\n\n{_comment(text)}", *(["keys:\n" + "\n".join(keys)] if keys else [])]
    said = dict(_said(text))
    if found := [line for name, chosen in groups.items() if name not in only for line in _groups(name, chosen, said.get(name, ""))]:
        parts.append(f"groups, in brackets what is chosen (ttsadapt {command} --help <group>=<option>: its keys):\n" + "\n".join(found))
    parts += [f"and all that `ttsadapt {d} --help` lists" for d in defaults if isinstance(d, str) and d != "_self_"]
    return "\n\n".join([*parts, _MORE.format(command=command)])


def _comment(text: str) -> str:
    """The comment that a file begins with; package headers left out."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines += [] if line.startswith("# @package") else [line[1:].removeprefix(" ")]
    return "\n".join(lines)


def _keys(text: str, prefix: str = "", without: Collection[str] = ()) -> Iterator[str]:
    """`key=value   comment` for every key of a yaml file, those within others dotted."""
    above: list[tuple[int, str]] = []
    for found in filter(None, map(_KEY.fullmatch, text.splitlines())):
        indent = len(found["indent"])
        above = [*((i, n) for i, n in above if i < indent), (indent, found["name"])]
        if above[0][1] in {*without, "defaults"} or found["name"].startswith("_"):
            continue
        key = prefix + ".".join(name for _, name in above)
        yield from _entry(key if found["value"] is None else f"{key}={found['value']}", found["says"] or "", found["value"] is None)


def _said(text: str) -> Iterator[tuple[str, str]]:
    """(key, comment) of the keys at the top of a yaml file."""
    yield from ((f["name"], f["says"]) for f in filter(None, map(_KEY.fullmatch, text.splitlines())) if f["says"] and not f["indent"])


def _entry(left: str, right: str, only_said: bool = False) -> Iterator[str]:
    """Two columns; a mapping that nothing is said of is left to its keys."""
    if not right and only_said:
        return
    wrapped = textwrap.wrap(right, _WIDTH - _COLUMN - 2, break_long_words=False, break_on_hyphens=False)
    if len(left) >= _COLUMN:
        yield f"  {left}"
        left = ""
    if left or wrapped:
        yield f"  {left:<{_COLUMN}}{''.join(wrapped[:1])}".rstrip()
    yield from (f"  {'':<{_COLUMN}}{line}" for line in wrapped[1:])


def _groups(name: str, chosen: Any, says: str) -> Iterator[str]:
    """A group, those within it, and those that its options place inside themselves."""
    yield from _group(name, name, f" ({_shown(chosen)})", says)
    for folder in sorted(f for f in (paths.conf() / name).rglob("*") if f.is_dir()):
        within = folder.relative_to(paths.conf()).as_posix()
        if options(within) != ["default"]:
            yield from _group(within, within)
    for other, place in _placed(name).items():
        yield from _group(other, f"{other}@{name}.{place}")


def _group(name: str, left: str, chosen: str = "", says: str = "") -> Iterator[str]:
    there = [option for option in options(name) if "/" not in option or name == "experiments"]
    if there:
        yield from _entry(f"{left}=", f"{f'{says}: ' if says else ''}{', '.join(there)}{chosen}")


def _placed(group: str) -> dict[str, str]:
    """Other groups that options of `group` put somewhere inside themselves, each with the first of the places."""
    found: dict[str, str] = {}
    for option in options(group):
        file = paths.conf() / group / f"{option}.yaml"
        node = yaml.safe_load(_read(file)) if file.is_file() else None
        for entry in node.get("defaults", ()) if isinstance(node, dict) else ():
            other, _, place = (str(next(iter(entry))) if isinstance(entry, dict) else "").partition("@")
            if other.startswith("/") and place and place != "_here_" and other[1:].split("/")[0] != group:
                found.setdefault(other[1:], place)
    return found


def _shown(chosen: Any) -> str:
    return "null" if chosen is None else f"[{','.join(chosen)}]" if isinstance(chosen, list) else str(chosen)


def _asked(arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(group, option, its keys) of every `group=option` that there is."""
    for group, _, value in (a.lstrip("+").partition("=") for a in arguments if not a.startswith("-")):
        for option in value.strip("[]").split(","):
            if option and (paths.conf() / group / f"{option}.yaml").is_file():
                text = _read(paths.conf() / group / f"{option}.yaml")
                said = [textwrap.indent(_comment(text), "  ")] if _comment(text) else []
                yield group, option, "\n".join([*said, *_option(group, option)])


def _option(group: str, option: str) -> Iterator[str]:
    text = _read(paths.conf() / group / f"{option}.yaml")
    yield from _keys(text, "" if text.startswith("# @package _global_") else group.replace("/", ".") + ".")


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")
