"""Hydra's and OmegaConf's complaints about a config, said in one line with the name that was probably meant."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from ttsadapt.config.nearest import hint, nearest
from ttsadapt.config.options import elsewhere, groups, options
from ttsadapt.errors import UserError


def one_line(error: BaseException) -> str | None:
    """What the user did wrong, or None when it was not the user."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, ConfigCompositionException) and "Did you mean to override" in str(cause):
            return " ".join(str(cause).split("\nTo append")[0].split())  # with the place that was probably meant
        if isinstance(cause, ConfigCompositionException) and str(cause).startswith("Ambiguous value for argument"):
            return _ambiguous(str(cause))
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause)
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(cause, error)
        if isinstance(cause, ValidationError):
            return f"{cause.full_key or 'the config'}: {_first_line(cause)}"
    if any(isinstance(c, InterpolationResolutionError) and not _known(below) for c, below in zip(chain, [*chain[1:], None])):
        return None  # a resolver of ours broke: that is no mistake of the user
    if any(isinstance(c, YAMLError) for c in chain):
        return "not readable as yaml: " + " ".join(str(next(c for c in chain if isinstance(c, YAMLError))).split())
    return _joined(chain) if _known(error) else None


def _known(error: BaseException | None) -> bool:
    return error is None or isinstance(error, HydraException | OmegaConfBaseException)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """OmegaConf clears `__cause__` of what it raises anew; the context is still there."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing_config(error: MissingConfigException) -> str:
    name = PurePosixPath(re.sub(r"\.ya?ml$", "", error.missing_cfg_file or ""))
    group = str(name.parent).strip("/.")
    group = "experiments" if group.startswith("experiments") else group
    option = str(name.relative_to(group)) if group else str(name)
    if not error.missing_cfg_file or not group:
        return _first_line(error)
    there = {*(error.options or ()), *options(group)}
    if not there and group not in groups():
        return f"{group}={option}: there is no config group {group!r}{hint(group, groups())}"
    return f"{group}={option}: there is no such option{hint(option, there)}"


def _ambiguous(message: str) -> str:
    asked = message.splitlines()[0].partition("'")[2].rstrip("'")
    key, _, value = asked.partition("=")
    return f"{asked} has commas: write '{key}=[{value}]' for a list, '{key}=\"{value}\"' for a text, or add -m to run one after the other"


def _unreadable(error: OverrideParseException) -> str:
    reason = [line for line in error.message.splitlines() if line and not line.startswith(("Error parsing", "See "))]
    told = " ".join(reason[:1]).replace("missing EQUAL at '<EOF>'", "no = in it")
    return f"cannot read {error.override!r}: {told}; write key=value, lists as [a,b], a text with such signs as 'key=\"...\"'"


def _unknown_key(error: OmegaConfBaseException, outer: BaseException) -> str:
    """`full_key` names the first part that does not exist; the override may go on below it."""
    asked = re.search(r"(?:override|delete[^']*|merging override) '?([\w./@-]+)", _first_line(outer))
    key = asked.group(1) if asked else str(error.full_key)
    parent = error.parent_node
    if not isinstance(parent, DictConfig):
        return _joined([outer, error])
    path = str(parent._get_full_key(None))
    missing, siblings = str(error.key), [str(k) for k in parent if k != "hydra"]
    everything, asked_part = _flat(parent._get_root()), str(error.full_key)
    told = "" if key == asked_part else f"{key}: "
    if other := elsewhere(asked_part, parent._get_root()):
        return f"{told}there is no key {asked_part}: {other}"
    if (close := nearest(missing, siblings)) is not None:
        rest = key[len(asked_part) :] if key.startswith(asked_part) else ""
        meant = _extended(everything, f"{path}.{close}" if path else close, rest)
        return f"{told}there is no key {asked_part}: did you mean {meant!r}?"
    return f"{told}there is no key {asked_part}{hint(key, everything if nearest(key, everything) else siblings)}"


def _extended(everything: list[str], key: str, rest: str) -> str:
    """`key` + `rest` when that exists, else the closest key below `key`."""
    return nearest(key + rest, [k for k in everything if k.startswith(key)]) or key


def _flat(root: Container) -> list[str]:
    """Every dotted key below `root` but Hydra's own."""
    names: list[str] = []

    def walk(value: object, prefix: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if prefix or key != "hydra":
                    names.append(f"{prefix}{key}")
                    walk(item, f"{prefix}{key}.")

    walk(OmegaConf.to_container(root, resolve=False), "")
    return names


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip()


def _joined(chain: list[BaseException]) -> str:
    said: list[str] = []
    for error in chain:
        line = _first_line(error)
        if isinstance(error, HydraException | OmegaConfBaseException) and line not in said:
            said.append(line)
    return ": ".join(said)
