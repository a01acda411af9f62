"""Tensors: the protocol's datatypes, and numpy arrays from and to JSON values and raw bytes.

Arrays are checked, never bent: a value outside its datatype, a wrong count or a ragged list is
refused with a text that may be shown to the caller.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BYTES = "BYTES"
FP16 = "FP16"
BF16 = "BF16"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    FP16: np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    # numpy has no such type: bfloat16 is the upper half of a float32, as which a model gets it.
    BF16: np.dtype("<f4"),
    BYTES: np.dtype(object),
}
_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if name != BF16}
MAX_RANK = 32
_MAX_ELEMENTS = 1 << 40
"""Of a shape without its zeros: more than fits any request, less than numpy gives up at."""
_LENGTH = struct.Struct("<I")


class TensorError(ValueError):
    """A tensor that cannot be read; the text may be shown to the caller."""


def datatype_of(array: Array) -> str:
    """Return the protocol's datatype of an array; raise TypeError when it has none."""
    if array.dtype.kind in "OSU":
        return BYTES
    if array.dtype.name == "bfloat16":  # of the package ml_dtypes
        return BF16
    datatype = _DATATYPES.get(array.dtype.newbyteorder("<"))
    if datatype is None:
        raise TypeError(f"arrays of {array.dtype} have no datatype in the protocol")
    return datatype


def dtype_of(datatype: object) -> np.dtype[Any]:
    """Return the numpy type of a datatype; raise TensorError when there is none."""
    dtype = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise TensorError(f"datatype must be one of {', '.join(DTYPES)}")
    return dtype


def check_shape(shape: object) -> tuple[int, ...]:
    """Return a shape as sizes; raise TensorError when it is not a list of sizes."""
    sizes = list(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else None
    if sizes is None or any(type(size) is not int or size < 0 for size in sizes):
        raise TensorError("shape must be a list of whole numbers, none of them negative")
    if len(sizes) > MAX_RANK:
        raise TensorError(f"shape must have at most {MAX_RANK} dimensions")
    if math.prod(size or 1 for size in sizes) > _MAX_ELEMENTS:
        raise TensorError("shape is too large")
    return tuple(sizes)


def from_values(datatype: str, shape: tuple[int, ...], values: object) -> Array:
    """Make an array of JSON values, flat or nested as the shape says."""
    dtype = dtype_of(datatype)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TensorError("data must be a list")
    if datatype == BYTES:
        array = _texts(values)
    elif dtype.kind in "iu":
        array = _whole_numbers(datatype, dtype, values)
    else:
        array = _plain(datatype, dtype, values)
    return shaped(array, shape)


def from_raw(datatype: str, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """Make a writable array of little-endian bytes."""
    dtype = dtype_of(datatype)
    if datatype == BYTES:
        return shaped(_object_array(list(_split(raw))), shape)
    expected = math.prod(shape) * (2 if datatype == BF16 else dtype.itemsize)
    if len(raw) != expected:
        raise TensorError(f"{datatype} of this shape takes {expected} bytes, not {len(raw)}")
    if datatype == BF16:
        halves = np.frombuffer(raw, dtype="<u2").astype("<u4")
        return (halves << 16).view("<f4").reshape(shape)
    if dtype.kind == "b":
        flags: Array = np.frombuffer(raw, dtype=np.uint8) != 0
        return flags.reshape(shape)
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()


def from_elements(datatype: str, shape: tuple[int, ...], elements: Sequence[Any]) -> Array:
    """Make an array of typed elements that are known to be of one kind (bytes for BYTES)."""
    dtype = dtype_of(datatype)
    if datatype == BYTES:
        return shaped(_object_array(list(elements)), shape)
    if dtype.kind in "iu":
        return shaped(_whole_numbers(datatype, dtype, list(elements)), shape)
    return shaped(np.fromiter(elements, dtype=dtype, count=len(elements)), shape)


def to_values(array: Array) -> list[Any]:
    """Return the elements as JSON values, row by row; what JSON cannot say (NaN, ±∞) is None."""
    datatype = datatype_of(array)
    if datatype == BYTES:
        return [_text(element) for element in array.reshape(-1).tolist()]
    if datatype == BF16:
        return to_values(array.astype(np.float32))
    values: list[Any] = array.reshape(-1).tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [value if math.isfinite(value) else None for value in values]
    return values


def to_elements(array: Array) -> list[Any]:
    """Return the elements row by row; those of BYTES as bytes."""
    if datatype_of(array) == BYTES:
        return [_encoded(element) for element in array.reshape(-1).tolist()]
    elements: list[Any] = array.reshape(-1).tolist()
    return elements


def to_raw(array: Array) -> bytes:
    """Return the elements as little-endian bytes, row by row."""
    datatype = datatype_of(array)
    if datatype == BYTES:
        parts = to_elements(array)
        return b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    if datatype == BF16:
        return np.ascontiguousarray(array).view(np.uint16).astype("<u2").tobytes()
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def as_text(array: Array) -> Array:
    """Turn the elements of a BYTES tensor into text; raise TensorError when one is not UTF-8."""
    try:
        texts = [element.decode() for element in array.reshape(-1).tolist()]
    except UnicodeDecodeError:
        raise TensorError("this input is text: its elements must be UTF-8") from None
    return _object_array(texts).reshape(array.shape)


def _plain(datatype: str, dtype: np.dtype[Any], values: Sequence[Any]) -> Array:
    array = _array(values)
    allowed = "b" if dtype.kind == "b" else "iuf"
    if array.size and array.dtype.kind not in allowed:
        raise TensorError(f"data holds a value that is no {datatype}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(cast).all():  # JSON can say none but too large ones
        raise TensorError(f"data holds a number outside {datatype}")
    return _rounded(cast) if datatype == BF16 else cast


def _rounded(array: Array) -> Array:
    """Round each float32 to the nearest bfloat16, halves to the even one."""
    bits = np.ascontiguousarray(array).view("<u4").astype(np.uint64)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype("<u4").view("<f4").reshape(array.shape)


def _whole_numbers(datatype: str, dtype: np.dtype[Any], values: Sequence[Any]) -> Array:
    array = _array(values)
    limits = np.iinfo(dtype)
    if array.dtype.kind in "fO":  # numpy has no common type for 1 and 2**63: look at each
        flat = list(_leaves(values))
        if any(type(value) is not int for value in flat):
            raise TensorError(f"data holds a value that is no {datatype}")
        if all(limits.min <= value <= limits.max for value in flat):
            return np.array(flat, dtype=dtype)
    elif array.dtype.kind not in "iu":
        raise TensorError(f"data holds a value that is no {datatype}")
    elif limits.min <= int(array.min()) and int(array.max()) <= limits.max:
        return array.astype(dtype)
    raise TensorError(f"data holds a number outside {datatype}")


def _texts(values: Sequence[Any]) -> Array:
    flat = list(_leaves(values))
    if any(not isinstance(value, str) for value in flat):
        raise TensorError("data of BYTES must be texts")
    try:
        return _object_array([value.encode() for value in flat])
    except UnicodeEncodeError:
        raise TensorError("data holds a text that is not Unicode") from None


def _array(values: Sequence[Any]) -> Array:
    try:
        return np.array(values)
    except (ValueError, OverflowError):
        raise TensorError("data must be numbers, in a flat list or nested as the shape") from None


def _leaves(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value


def shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array in a shape; raise TensorError when it has too many or too few elements."""
    if array.size != math.prod(shape):
        raise TensorError(f"this shape takes {math.prod(shape)} elements, not {array.size}")
    return array.reshape(shape)


def _object_array(elements: list[Any]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _split(raw: bytes | memoryview) -> Iterable[bytes]:
    place = 0
    while place < len(raw):
        if len(raw) - place < _LENGTH.size:
            raise TensorError("BYTES end within a length")
        (length,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size
        if len(raw) - place < length:
            raise TensorError("BYTES end within an element")
        yield bytes(raw[place : place + length])
        place += length


def _encoded(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _text(element: object) -> str:
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError:
        raise TensorError("an output holds bytes that are no text: ask for it as raw") from None
