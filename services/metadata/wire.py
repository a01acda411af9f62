"""Between messages and domain, for what several resources share: times, values, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from modelyard.common.v1 import failure_pb2, value_pb2

from services.common.errors import invalid_field
from services.common.listing.pagination import page_size
from services.metadata import limits
from services.metadata.listing import Listing
from services.metadata.values import Failure, ParamValue


class _ListRequest(Protocol):
    """A request for a page of something."""

    page_size: int
    page_token: str


def listing(request: _ListRequest, *, default: int = 50, maximum: int = 1000) -> Listing:
    """Return which page a List request wants."""
    return Listing(
        size=page_size(request.page_size, default=default, maximum=maximum),
        token=request.page_token,
        filter=getattr(request, "filter", ""),
        order=getattr(request, "order_by", ""),
        show_deleted=getattr(request, "show_deleted", False),
    )


def moment(timestamp: Timestamp, field: str) -> datetime:
    """Return an aware moment, to the microsecond; a time that is none is INVALID_FIELD."""
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise invalid_field(field, "must be a time between the years 1 and 9999") from None


def stamp(timestamp: Timestamp, value: datetime | None) -> None:
    """Set a message's time; a moment that is None leaves it unset."""
    if value is not None:
        timestamp.FromDatetime(value)


def timestamp(value: datetime) -> Timestamp:
    """Return a moment's message."""
    message = Timestamp()
    message.FromDatetime(value)
    return message


def failure(value: Failure | None) -> failure_pb2.Failure | None:
    """Return a failure's message; None when there is none."""
    if value is None:
        return None
    return failure_pb2.Failure(reason=value.reason, message=value.message)


def failure_from(message: failure_pb2.Failure, field: str) -> Failure:
    """Read a failure that a caller reports."""
    return Failure(
        limits.line(message.reason, f"{field}.reason", limits.FAILURE_REASON),
        limits.lines(message.message, f"{field}.message", limits.FAILURE_MESSAGE),
    )


def value(found: ParamValue) -> value_pb2.Value:
    """Return a parameter's value as a message, of the type it was logged with."""
    if isinstance(found, bool):
        return value_pb2.Value(bool_value=found)
    if isinstance(found, int):
        return value_pb2.Value(int_value=found)
    if isinstance(found, float):
        return value_pb2.Value(float_value=found)
    if isinstance(found, str):
        return value_pb2.Value(string_value=found)
    return value_pb2.Value(list_value=value_pb2.ListValue(values=[value(v) for v in found]))


def value_from(message: value_pb2.Value, field: str, *, depth: int = 0) -> ParamValue:
    """Read a parameter's value, or refuse it."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid_field(field, "must have a value")
    if kind == "string_value":
        return limits.lines(message.string_value, field, limits.VALUE_TEXT)
    if kind != "list_value":
        scalar: Any = getattr(message, kind)
        return scalar  # type: ignore[no-any-return]  # an int, a float or a bool
    if depth >= limits.LIST_DEPTH or len(message.list_value.values) > limits.LIST_VALUES:
        problem = f"must be at most {limits.LIST_VALUES} values, {limits.LIST_DEPTH} deep"
        raise invalid_field(field, problem)
    return [value_from(item, field, depth=depth + 1) for item in message.list_value.values]
