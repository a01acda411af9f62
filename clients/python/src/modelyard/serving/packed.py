"""Packed fields of floats and truth values, taken from and put into messages whole.

A Python object for each element costs some thirty times what a copy of the bytes does. A message
that holds one packed field is, in the wire format, the field's tag, the number of its bytes and
the elements themselves, little-endian (protobuf.dev/programming-guides/encoding): so it is
written out and read as an array, or filled by reading such bytes. How the elements came over the
network, packed or one by one, does not matter: protobuf has read them by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The datatypes whose elements have one width in a message."""
_LENGTH_DELIMITED = 2


def read(message: Message, field: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the elements of a packed field, the only one that is set, as an array to write to."""
    elements = getattr(message, field)
    header = _header(message, field, len(elements) * dtype.itemsize)
    data = message.SerializePartialToString()
    if not data.startswith(header):  # what the message does not know comes last, as a rule
        return np.fromiter(elements, dtype=dtype, count=len(elements))
    return np.frombuffer(data, dtype=dtype, count=len(elements), offset=len(header)).copy()


def write(message: Message, field: str, array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Put elements into a packed field."""
    data = np.ascontiguousarray(array, dtype=dtype).tobytes()
    message.MergeFromString(_header(message, field, len(data)) + data)


def _header(message: Message, field: str, length: int) -> bytes:
    """Return the tag and the length before a packed field's elements; nothing before none."""
    if not length:
        return b""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
