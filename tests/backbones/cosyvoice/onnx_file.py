"""The smallest onnx files of one operator, byte by byte (onnx.proto3), so that no package is needed to write them."""

from pathlib import Path

FLOAT, INT32, INT64 = 1, 6, 7


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _value(name: str, kind: int, dims: list[int | str]) -> bytes:
    shape = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in dims)
    tensor = _number(1, kind) + _bytes(2, shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, 2)
    return _bytes(1, name) + b"".join(_number(8, v) for v in value) + _number(20, 7)


def write(path: Path, operator: str, inputs: dict, output: tuple[int, list], **attributes: int | list[int]) -> Path:
    """`operator`(first input) -> "out"; inputs: {name: (kind, dims)}; further inputs are not used."""
    node = _bytes(1, next(iter(inputs))) + _bytes(2, "out") + _bytes(4, operator)
    node += b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
    graph = _bytes(1, node) + _bytes(2, "test")
    graph += b"".join(_bytes(11, _value(name, kind, dims)) for name, (kind, dims) in inputs.items())
    graph += _bytes(12, _value("out", *output))
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13)))
    return path


def speech_tokenizer(path: Path) -> Path:
    """The loudest of 128 bands of every frame."""
    inputs = {"feats": (FLOAT, [1, 128, "T"]), "feats_length": (INT32, [1])}
    return write(path, "ArgMax", inputs, (INT64, [1, "T"]), axis=1, keepdims=0)


def speaker_encoder(path: Path) -> Path:
    """The root of the mean square of 80 bands."""
    return write(path, "ReduceL2", {"input": (FLOAT, [1, "T", 80])}, (FLOAT, [1, 80]), axes=[1], keepdims=0)
