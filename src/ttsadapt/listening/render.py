"""The page as one file that asks the network for nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ttsadapt.errors import UserError
from ttsadapt.listening.sound import FORMATS


def render(content: Mapping[str, Any], post: str | None) -> str:
    """`post`: the only address that the page may talk to."""
    environment = Environment(
        loader=PackageLoader("ttsadapt.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _resource("listening.js")
    data = json.dumps(dict(content) | {"mime": FORMATS[content["form"]][2]}, ensure_ascii=False, separators=(",", ":"))
    return environment.get_template("listening.html").render(
        title=content["title"],
        words=content["words"],
        style=Markup(_resource("report.css") + _resource("listening.css")),
        data=Markup(data.replace("<", "\\u003c")),  # no text can end the script element
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        connect=_origin(post) if post else Markup("'none'"),
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.netloc or any(c in parts.netloc for c in "; '\""):
        raise UserError(f"page.post={url}: an address such as https://example.org/answers is wanted")
    return f"{parts.scheme}://{parts.netloc}"


def _resource(name: str) -> str:
    return (files("ttsadapt.reports") / "templates" / name).read_text(encoding="utf-8")
