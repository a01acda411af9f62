"""Values that several resources share: parameters' values, failures, metric order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

ParamValue = bool | int | float | str | list[Any]
# Made once: to make one costs more than to decode.
_DECODER: msgspec.msgpack.Decoder[ParamValue] = msgspec.msgpack.Decoder(ParamValue)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a piece of work ended badly: a stable reason, and a sentence for a person."""

    reason: str
    message: str


def pack(value: object) -> bytes:
    """Encode a value for storage; values of different types never encode alike."""
    return msgspec.msgpack.encode(value)


def unpack_param(data: bytes) -> ParamValue:
    """Decode a stored parameter's value."""
    return _DECODER.decode(data)


def same(first: ParamValue, second: ParamValue) -> bool:
    """Say whether two parameters' values are the same, type and NaN included."""
    return pack(first) == pack(second)


def param_columns(value: ParamValue) -> dict[str, Any]:
    """Return the columns a parameter's value is stored and searched by."""
    is_flag = isinstance(value, bool)
    number = float(value) if isinstance(value, int | float) and not is_flag else None
    return {
        "value": pack(value),
        "text_value": value if isinstance(value, str) else None,
        "number_value": number,
        "flag_value": value if is_flag else None,
    }


def is_better(candidate: float, best: float | None, *, maximize: bool) -> bool:
    """Say whether a value beats the best so far; NaN never does."""
    if math.isnan(candidate):
        return False
    return best is None or (candidate > best if maximize else candidate < best)
