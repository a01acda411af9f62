"""Moments as messages have them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """Encode a moment."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message
