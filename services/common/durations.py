"""Durations in requests: any two integers on the wire, a bounded length of time after this."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from services.common.errors import invalid_field

NANOS = 1_000_000_000


def length_of(
    message: Duration, field: str, *, most: timedelta, least: timedelta = timedelta()
) -> timedelta:
    """Return a length of time.

    Raises:
        ServiceError: INVALID_FIELD when it is none, below `least` or above `most`.
    """
    # The library takes any nanoseconds, and counts them on.
    is_one = abs(message.nanos) < NANOS and message.seconds * message.nanos >= 0
    try:
        length = message.ToTimedelta() if is_one else timedelta.max
    except (ValueError, OverflowError):
        length = timedelta.max
    if not least <= length <= most:
        problem = f"must be from {least.total_seconds():g} s to {most.total_seconds():g} s"
        raise invalid_field(field, problem)
    return length
