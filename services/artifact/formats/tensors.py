"""Formats of tensors and tables: safetensors, NumPy, GGUF, Parquet, Arrow, HDF5.

The safetensors format: an unsigned 64-bit little-endian length, a JSON header of that
length, and the tensors' bytes without gap or overlap
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import ast
import json
import math
import re
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
_ENCLOSED = ((b"PAR1", "Parquet"), (b"ARROW1", "Arrow"))
"""Formats that begin and end with the same bytes."""
_GGUF = b"GGUF"
_NPY = b"\x93NUMPY"
_ITEM = re.compile(r"[<>|=]?([?biufcSUVmM])(\d*)(\[.*\])?")
_OBJECT = re.compile(r"'[<>|=]?O\d*'")
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
        problem = _tensors_problem(
            json.loads(file.read(length), object_pairs_hook=_once), size - 8 - length
        )
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
            if not all(_is_count(number) for number in (begin, stop, *tensor["shape"])):
                return "a tensor is not described as it must be"
            bits = math.prod(tensor["shape"]) * _BITS[tensor["dtype"]]
            if begin != end or stop < begin or (stop - begin) * 8 != bits:
                return "its tensors overlap, have gaps or other sizes than they say"
            end = stop
    except (KeyError, TypeError, ValueError):
        return "a tensor is not described as it must be"
    return "" if end == size else "its tensors do not fill it"


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of members that are each there once."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member is there twice")
    return found


def _is_count(number: object) -> bool:
    return type(number) is int and number >= 0


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
        if _OBJECT.search(repr(header["descr"])):
            return unsafe("NumPy", "an array of objects is a pickle")
        wanted = start + length + math.prod(header["shape"]) * _item_bytes(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError, MemoryError, RecursionError):
        return unverified("NumPy", "its header cannot be read")
    return allowed("NumPy") if size == wanted else unverified("NumPy", "it has another size")


def _item_bytes(descr: Any) -> int:
    """Return how many bytes an item takes, a record being a list of its fields."""
    if isinstance(descr, list):
        return sum(_item_bytes(field[1]) * math.prod((*field[2:], (1,))[0]) for field in descr)
    match = _ITEM.fullmatch(descr)
    if match is None:
        raise ValueError(descr)
    kind, count = match[1], int(match[2] or 1)
    return count * 4 if kind == "U" else count


def tables(path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
    """Recognise formats that are told by their first and last bytes."""
    if head.startswith(_HDF5):
        return unverified("HDF5", "a Keras model in it may hold code")
    if head.startswith(_GGUF):
        return unverified("GGUF", "a chat template in it is carried out by who uses it")
    for magic, name in _ENCLOSED:
        if head.startswith(magic):
            file.seek(max(size - len(magic), 0))
            return allowed(name) if file.read() == magic else unverified(name, "it has no end")
    return None
