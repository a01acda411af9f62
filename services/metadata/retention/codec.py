"""Between messages and domain: retention."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from modelyard.metadata.v1 import retention_pb2

from services.common.durations import length_of
from services.common.errors import invalid_field
from services.metadata.retention.domain import Retention, Rules, Verdict
from services.metadata.wire import stamp

KEEP_LAST = 1_000_000
LONGEST = timedelta(days=36_500)


def rules(message: retention_pb2.Retention) -> Rules:
    """Return what the caller wants kept."""
    if not 1 <= message.keep_last_count <= KEEP_LAST:
        raise invalid_field("retention.keep_last_count", f"must be 1 to {KEEP_LAST}")
    keep = message.keep_duration if message.HasField("keep_duration") else None
    purge = message.purge_after_duration if message.HasField("purge_after_duration") else None
    return Rules(
        message.keep_last_count,
        _duration(keep, "retention.keep_duration"),
        _duration(purge, "retention.purge_after_duration"),
    )


def retention(found: Retention) -> retention_pb2.Retention:
    """Return a retention's message."""
    message = retention_pb2.Retention(
        model=str(found.model),
        keep_last_count=found.rules.keep_last,
        etag=str(found.revision),
        setter=found.setter,
    )
    if found.rules.keep_for is not None:
        message.keep_duration.FromTimedelta(found.rules.keep_for)
    if found.rules.purge_after is not None:
        message.purge_after_duration.FromTimedelta(found.rules.purge_after)
    stamp(message.update_time, found.update_time)
    return message


def verdict(found: Verdict) -> retention_pb2.RetentionVerdict:
    """Return a verdict's message."""
    action = retention_pb2.RetentionAction.Value(f"RETENTION_ACTION_{found.action.value}")
    return retention_pb2.RetentionVerdict(
        version=str(found.name), action=action, reasons=found.reasons
    )


def _duration(message: Duration | None, field: str) -> timedelta | None:
    if message is None:
        return None
    return length_of(message, field, most=LONGEST)
