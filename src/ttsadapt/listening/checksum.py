"""What tells that a file of answers is as the page wrote it: against slips and idle hands, not against a forger."""

import json
from typing import Any


def fnv(text: str) -> int:
    """64-bit FNV-1a of UTF-8, as the page computes it (RFC 9923)."""
    value = 0xCBF29CE484222325
    for byte in text.encode("utf-8", "surrogatepass"):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def checksum(body: Any) -> str:
    """Of `JSON.stringify(body)`, of which whole numbers are the only numbers."""
    return f"{fnv(json.dumps(body, ensure_ascii=False, separators=(',', ':'))):016x}"


def sheet_of(listener: str, sheets: int) -> int:
    """Numbers take the sheets in turn, from 1; other codes fall anywhere."""
    return (int(listener) - 1) % sheets if listener.isascii() and listener.isdigit() and int(listener) > 0 else fnv(listener) % sheets
