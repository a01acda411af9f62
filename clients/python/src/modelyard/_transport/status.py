"""From a failed gRPC call to the exception that `errors` names for it."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from modelyard.errors import BY_CODE, BY_REASON, ModelyardError, Violation

_DETAILS_KEY = "grpc-status-details-bin"
# What a failure without details means: it came from gRPC itself, not from a service.
_REASONS = {
    "UNAVAILABLE": "SERVICE_UNAVAILABLE",
    "UNIMPLEMENTED": "UNKNOWN_METHOD",
    "UNAUTHENTICATED": "INVALID_CREDENTIAL",
    "PERMISSION_DENIED": "RIGHT_MISSING",
    "RESOURCE_EXHAUSTED": "LIMIT_EXCEEDED",
}

_RESETS = ("RST_STREAM", "Internal error from Core")
"""What gRPC says, as INTERNAL, of a stream that ended because a server behind a proxy died, and
in asyncio of one that was written to while the server ended it."""


def error_from(failure: grpc.RpcError, *, server: str) -> ModelyardError:
    """Return the exception for a failed call; `server` is named when it is out of reach."""
    code = failure.code().name
    text = failure.details() or ""
    status = _status_of(failure)
    if status is None:
        return _transport_error(code, text, server=server)
    details = _Details(status)
    kind = BY_REASON.get(details.reason) or BY_CODE.get(code, ModelyardError)
    return kind(
        status.message or text,
        reason=details.reason,
        code=code,
        metadata=details.metadata,
        violations=details.violations,
        retry_delay=details.retry_delay,
    )


class _Details:
    """What a google.rpc.Status carries beside its message."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.violations: list[Violation] = []
        self.retry_delay: float | None = None
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(request):
                self.violations += [
                    Violation(v.field, v.description) for v in request.field_violations
                ]
            elif detail.Unpack(retry):
                self.retry_delay = retry.retry_delay.ToNanoseconds() / 1e9


def _status_of(failure: grpc.RpcError) -> status_pb2.Status | None:
    metadata: Any = failure.trailing_metadata() or ()  # pairs; its stubs do not say so
    for key, value in metadata:
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _transport_error(code: str, text: str, *, server: str) -> ModelyardError:
    message = text or code.replace("_", " ").lower()
    if code == "INTERNAL" and any(reset in text for reset in _RESETS):
        code = "UNAVAILABLE"
    if code == "UNAVAILABLE":
        message = f"cannot reach the server at {server}: {message}"
    elif code == "DEADLINE_EXCEEDED":
        message = f"the server at {server} did not answer in time"
    kind = BY_CODE.get(code, ModelyardError)
    return kind(message, reason=_REASONS.get(code, code), code=code)
