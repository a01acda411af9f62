"""ONNX models, by walking the fields of their protobuf message without parsing it.

The fields are those of `ModelProto`, `GraphProto`, `TensorProto` and
`OperatorSetIdProto` in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from services.artifact.formats.domain import Finding, allowed, unverified

_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_INITIALIZER = 5
_DATA_LOCATION, _EXTERNAL = 14, 1
_DOMAIN = 1
_USUAL_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training"})
_MAX_FIELDS = 200_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _MalformedError(Exception):
    """It is no protobuf message of this kind."""


def onnx_model(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise an ONNX model; one with custom operators or data elsewhere is not vouched for."""
    if head[:1] != b"\x08":
        return None
    try:
        fields = list(_fields(file, 0, size))
    except _MalformedError:
        return None
    numbers = {number for number, _, _, _ in fields}
    if not {_IR_VERSION, _GRAPH} <= numbers or not numbers <= _MODEL_FIELDS:
        return None
    try:
        reasons = [*_domains(file, fields), *_outside(file, fields)]
    except _MalformedError:
        reasons = ["its graph cannot be read"]
    return unverified("ONNX", *reasons) if reasons else allowed("ONNX")


_Field = tuple[int, int, int, int]
"""Number, value of a varint, and where its bytes begin and end."""


def _domains(file: BinaryIO, fields: list[_Field]) -> Iterator[str]:
    for number, _, start, end in fields:
        if number == _OPSET:
            for inner, _, at, stop in _fields(file, start, end):
                if inner == _DOMAIN:
                    file.seek(at)
                    domain = file.read(min(stop - at, 200)).decode("utf-8", "replace")
                    if domain not in _USUAL_DOMAINS:
                        yield f"it needs operators of {domain}"


def _outside(file: BinaryIO, fields: list[_Field]) -> Iterator[str]:
    for number, _, start, end in fields:
        if number == _GRAPH:
            for inner, _, at, stop in _fields(file, start, end):
                if inner == _INITIALIZER and _is_outside(file, at, stop):
                    yield "it reads tensors from other files"
                    return


def _is_outside(file: BinaryIO, start: int, end: int) -> bool:
    return any(
        number == _DATA_LOCATION and value == _EXTERNAL
        for number, value, _, _ in _fields(file, start, end)
    )


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """Yield a message's fields, their bytes skipped."""
    at, count = start, 0
    while at < end:
        count += 1
        if count > _MAX_FIELDS:
            raise _MalformedError
        tag, at = _varint(file, at, end)
        number, kind = tag >> 3, tag & 7
        value = 0
        if kind == _VARINT:
            value, stop = _varint(file, at, end)
        elif kind == _BYTES:
            length, at = _varint(file, at, end)
            stop = at + length
        elif kind in (_FIXED32, _FIXED64):
            stop = at + (4 if kind == _FIXED32 else 8)
        else:
            raise _MalformedError
        if not number or stop > end:
            raise _MalformedError
        yield number, value, at, stop
        at = stop


def _varint(file: BinaryIO, at: int, end: int) -> tuple[int, int]:
    file.seek(at)
    value = 0
    for shift, byte in enumerate(file.read(min(10, end - at))):
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value, at + shift + 1
    raise _MalformedError
