"""Parameters and times between Python and the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.common.v1 import value_pb2
from modelyard.errors import InvalidArgumentError

Param = bool | int | float | str | list["Param"]
"""A parameter's value; it keeps its type."""


def encode_params(params: Mapping[str, object] | None) -> dict[str, value_pb2.Value]:
    """Return parameters as they are sent."""
    return {key: encode_value(value, key=key) for key, value in (params or {}).items()}


def encode_value(value: object, *, key: str = "value") -> value_pb2.Value:
    """Return one parameter's value as it is sent; scalars of NumPy are taken as Python's.

    Raises:
        InvalidArgumentError: The value is of no type that a parameter may have.
    """
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        value = item()
    match value:
        case bool():
            return value_pb2.Value(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return value_pb2.Value(int_value=value)
        case float():
            return value_pb2.Value(float_value=value)
        case str():
            return value_pb2.Value(string_value=value)
        case list() | tuple():
            values = [encode_value(part, key=key) for part in value]
            return value_pb2.Value(list_value=value_pb2.ListValue(values=values))
    raise InvalidArgumentError(
        f"{key}: {type(value).__name__} is no parameter; use a 64-bit int, float, bool, str "
        "or a list of them",
        reason="INVALID_FIELD",
        metadata={"field": key},
    )


def decode_value(value: value_pb2.Value) -> Param | None:
    """Return a parameter's value as a Python object; None when it is unset."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return [cast("Param", decode_value(part)) for part in value.list_value.values]
    return cast("Param", getattr(value, kind))


def encode_time(moment: datetime | None) -> Timestamp | None:
    """Return a moment as it is sent; it must know its time zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidArgumentError(
            "a time must have a time zone, such as datetime.now(UTC)", reason="INVALID_FIELD"
        )
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp
