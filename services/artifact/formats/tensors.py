"""Formats of tensors and tables: safetensors, NumPy, GGUF, Parquet, Arrow, HDF5.

The safetensors format: an unsigned 64-bit little-endian length, a JSON header of that
length, and the tensors' bytes without gap or overlap
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import ast
import json
import math
from typing import Any, BinaryIO

from services.artifact.formats.domain import Finding, allowed, unsafe, unverified

_HEADER_BYTES = 32 * 1024 * 1024
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
}
_MAGICS = ((b"GGUF", "GGUF"), (b"PAR1", "Parquet"), (b"ARROW1", "Arrow"))
_NPY = b"\x93NUMPY"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def safetensors(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise safetensors by its header."""
    length = int.from_bytes(head[:8], "little")
    looks_alike = size > 8 and head[8:9] == b"{" and 2 <= length <= size - 8
    if not looks_alike:
        return None if not path.endswith(".safetensors") else unverified("?", "no safetensors")
    if length > _HEADER_BYTES:
        return unverified("safetensors", "its header is too large to be read")
    file.seek(8)
    try:
        problem = _tensors_problem(json.loads(file.read(length)), size - 8 - length)
    except (ValueError, RecursionError):
        problem = "its header is no JSON"
    return unverified("safetensors", problem) if problem else allowed("safetensors")


def _tensors_problem(header: Any, size: int) -> str:
    if not isinstance(header, dict):
        return "its header is no object"
    header.pop("__metadata__", None)
    end = 0
    try:
        tensors = sorted(header.values(), key=lambda tensor: tensor["data_offsets"])
        for tensor in tensors:
            begin, stop = tensor["data_offsets"]
            bits = math.prod(tensor["shape"]) * _BITS[tensor["dtype"]]
            if begin != end or stop < begin or (stop - begin) * 8 != bits:
                return "its tensors overlap, have gaps or other sizes than they say"
            end = stop
    except (KeyError, TypeError, ValueError):
        return "a tensor is not described as it must be"
    return "" if end == size else "its tensors do not fill it"


def numpy_array(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise an array saved by NumPy; one of objects is a pickle.

    Its header is described in `numpy.lib.format`.
    """
    if not head.startswith(_NPY):
        return None
    start = 10 if head[6:7] == b"\x01" else 12
    length = int.from_bytes(head[8:start], "little")
    try:
        header = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        kind = str(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return unverified("NumPy", "its header cannot be read")
    if "O" in kind:
        return unsafe("NumPy", "an array of objects is a pickle")
    return allowed("NumPy")


def tables(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise formats that are told by their first bytes."""
    if head.startswith(_HDF5):
        return unverified("HDF5", "a Keras model in it may hold code")
    return next((allowed(name) for magic, name in _MAGICS if head.startswith(magic)), None)
