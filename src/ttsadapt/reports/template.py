"""What pages are made from: jinja2 templates, styles and scripts that are part of the package."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def fill(name: str, script: str, content: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None) -> str:
    """Template `name` with `content`; `script` is the one file that the page may run, known to it by `script_hash`."""
    environment = Environment(
        loader=PackageLoader("ttsadapt.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    source = resource(script)
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template(name).render(**content, script=Markup(source), script_hash=digest)


def resource(name: str) -> str:
    return (files("ttsadapt.reports") / "templates" / name).read_text(encoding="utf-8")
