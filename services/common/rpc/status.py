"""The one table from an error's reason to its gRPC status, and the wire form of an error.

The wire form is `google.rpc.Status` with exactly one `ErrorInfo` and, for
fields, a `BadRequest` (AIP-193); the table is section 3.0 of the contract in
docs/errors.md.
"""

from __future__ import annotations

import math

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from services.common.errors import Reason, ServiceError, Violation

DOMAIN = "modelyard.dev"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
RETRY_SECONDS = 1

_C = grpc.StatusCode
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.MALFORMED_REQUEST: _C.INVALID_ARGUMENT,
    Reason.INVALID_FIELD: _C.INVALID_ARGUMENT,
    Reason.INVALID_NAME: _C.INVALID_ARGUMENT,
    Reason.INVALID_FILTER: _C.INVALID_ARGUMENT,
    Reason.INVALID_ORDER: _C.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: _C.INVALID_ARGUMENT,
    Reason.INVALID_CURSOR: _C.INVALID_ARGUMENT,
    Reason.DIGEST_MISMATCH: _C.INVALID_ARGUMENT,
    Reason.INVALID_PATH: _C.INVALID_ARGUMENT,
    Reason.INVALID_MANIFEST: _C.INVALID_ARGUMENT,
    Reason.INVALID_CREDENTIAL: _C.UNAUTHENTICATED,
    Reason.RIGHT_MISSING: _C.PERMISSION_DENIED,
    Reason.RESOURCE_NOT_FOUND: _C.NOT_FOUND,
    Reason.RESOURCE_EXISTS: _C.ALREADY_EXISTS,
    Reason.ETAG_MISMATCH: _C.ABORTED,
    Reason.ALIAS_MOVED: _C.ABORTED,
    Reason.LEASE_LOST: _C.ABORTED,
    Reason.REQUEST_ID_REUSED: _C.FAILED_PRECONDITION,
    Reason.WRONG_STATE: _C.FAILED_PRECONDITION,
    Reason.RESOURCE_IN_USE: _C.FAILED_PRECONDITION,
    Reason.BYTES_MISSING: _C.FAILED_PRECONDITION,
    Reason.GATE_REFUSED: _C.FAILED_PRECONDITION,
    Reason.PARAM_CHANGED: _C.FAILED_PRECONDITION,
    Reason.GOAL_MISSING: _C.FAILED_PRECONDITION,
    Reason.NOTHING_TO_ROLL_BACK: _C.FAILED_PRECONDITION,
    Reason.CAPACITY_EXCEEDED: _C.FAILED_PRECONDITION,
    Reason.CURSOR_EXPIRED: _C.OUT_OF_RANGE,
    Reason.SEQUENCE_GAP: _C.OUT_OF_RANGE,
    Reason.OFFSET_OUT_OF_RANGE: _C.OUT_OF_RANGE,
    Reason.LIMIT_EXCEEDED: _C.RESOURCE_EXHAUSTED,
    Reason.SERVICE_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.CORRUPT_BYTES: _C.DATA_LOSS,
    Reason.INTERNAL: _C.INTERNAL,
    Reason.DEADLINE_EXCEEDED: _C.DEADLINE_EXCEEDED,
    Reason.UNKNOWN_METHOD: _C.UNIMPLEMENTED,
    Reason.CANCELLED: _C.CANCELLED,
}


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Look up the gRPC status code of an error."""
    return CODES[error.reason]


def encode(error: ServiceError) -> bytes:
    """Serialise an error as the `google.rpc.Status` that goes into the trailers."""
    details = [
        error_details_pb2.ErrorInfo(
            reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
        )
    ]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.retry_seconds or CODES[error.reason] is grpc.StatusCode.UNAVAILABLE:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil((error.retry_seconds or RETRY_SECONDS) * 1_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=code_of(error).value[0],
        message=error.message,
        details=[_packed(detail) for detail in details],
    )
    return bytes(status.SerializeToString())


def trailers(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    """Return what goes with an error's status.

    What passes a limit may also be tried again by gRPC's own retries: a header of theirs tells
    them when to, or that no waiting will help.
    """
    details = (DETAILS_KEY, encode(error))
    if code_of(error) is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return (details,)
    milliseconds = math.ceil(error.retry_seconds * 1_000) if error.retry_seconds else -1
    return details, (PUSHBACK_KEY, str(milliseconds))


def decode(error: grpc.aio.AioRpcError) -> ServiceError:
    """Turn what another service answered into the same error, to pass it on."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    if isinstance(details, bytes):
        return _from_status(status_pb2.Status.FromString(details))
    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    # What gRPC makes of a stream that ended because a service behind the proxy died.
    was_reset = "RST_STREAM" in (error.details() or "")
    if error.code() in away or was_reset:
        return unanswered()
    return ServiceError(Reason.INTERNAL, "internal error")


def unanswered() -> ServiceError:
    """Say that another service of the suite could not be asked."""
    return ServiceError(Reason.SERVICE_UNAVAILABLE, "a service of the suite does not answer")


def _from_status(status: status_pb2.Status) -> ServiceError:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)  # nothing, if it is of another
    return ServiceError(
        Reason(info.reason) if info.reason in Reason.__members__ else Reason.INTERNAL,
        status.message,
        violations=[Violation(v.field, v.description) for v in bad.field_violations],
        retry_seconds=retry.retry_delay.ToMilliseconds() / 1_000 or None,
        **dict(info.metadata),
    )


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    field_violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[field_violation(field=v.field, description=v.problem) for v in violations]
    )


def _packed(detail: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]  # the details are messages, untyped here
    return packed
