"""The page as one file that asks the network for nothing."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup

from ttsadapt.errors import UserError
from ttsadapt.listening.sound import FORMATS
from ttsadapt.reports.template import fill, resource


def render(content: Mapping[str, Any], post: str | None) -> str:
    """`post`: the only address that the page may talk to."""
    data = json.dumps(dict(content) | {"mime": FORMATS[content["form"]][2]}, ensure_ascii=False, separators=(",", ":"))
    filled = {
        "title": content["title"],
        "words": content["words"],
        "style": Markup(resource("report.css") + resource("listening.css")),
        "data": Markup(data.replace("<", "\\u003c")),  # no text can end the script element
        "connect": _origin(post) if post else Markup("'none'"),
    }
    return fill("listening.html", "listening.js", filled)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.netloc or any(c in parts.netloc for c in "; '\""):
        raise UserError(f"page.post={url}: an address such as https://example.org/answers is wanted")
    return f"{parts.scheme}://{parts.netloc}"
