"""Reads what an offline W&B run left: the records of run-<id>.wandb, without W&B's service.

The file is a 7-byte header, then LevelDB's log format: blocks of 32 KiB, chunks of (checksum u32, length u16, kind u8, bytes),
kind 1 a whole record, 2, 3, 4 its first, middle and last part. A record is a protobuf message.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, struct.Struct("<IHB")


@dataclass
class Offline:
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def read(file: Path) -> Offline:
    from wandb.proto.wandb_internal_pb2 import Record

    found = Offline()
    for data in _records(file.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config |= _values(record.run.config.update)
            case "config":
                found.config |= _values(record.config.update)
            case "history":
                found.history.append({k: v for k, v in _values(record.history.item).items() if not k.startswith("_")})
            case "artifact":
                found.artifacts.append(record.artifact)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """Ends quietly at the cut tail of a killed run."""
    assert data[:4] == b":W&B"
    at, parts = 7, b""
    while at + HEAD.size <= len(data):
        if BLOCK - at % BLOCK < HEAD.size:  # the rest of a block that is too short for a chunk
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEAD.unpack_from(data, at)
        at += HEAD.size
        if kind == 0 or at + length > len(data):
            return
        parts = (parts if kind in (3, 4) else b"") + data[at : at + length]
        at += length
        if kind in (1, 4):
            yield parts
