"""Which events of a build are wanted, as the service is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from modelyard.builder.v1 import build_event_pb2, build_pb2
from modelyard.builder.v1 import build_service_pb2 as service
from modelyard.errors import InvalidArgumentError


def narrow(
    request: service.StreamBuildEventsRequest,
    *,
    grep: str,
    since: datetime | timedelta | None,
    phase: str,
    stream: str,
    tail: int,
) -> service.StreamBuildEventsRequest:
    """Ask only for what is wanted; return the request."""
    request.grep, request.tail = grep, tail
    if since is not None:
        moment = datetime.now(UTC) - since if isinstance(since, timedelta) else since
        request.since_time.FromDatetime(moment)
    if phase:
        request.phase = _number(build_pb2.PhaseKind, phase, "phase")
    if stream:
        request.stream = _number(build_event_pb2.LogStream, stream, "stream")
    return request


def _number(enum: Any, word: str, what: str) -> Any:
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    names = {name.removeprefix(prefix): number for name, number in enum.items() if number}
    if word.upper() not in names:
        known = ", ".join(names).lower()
        raise InvalidArgumentError(f"{what} must be one of {known}", reason="INVALID_FIELD")
    return names[word.upper()]
