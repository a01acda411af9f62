"""The one error type of the suite: a documented reason, a message, metadata.

Use cases raise `ServiceError`; the errors interceptor turns it into a
`google.rpc.Status` by the one table in `status.py`. Nothing else that a server
raises ever reaches a caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelyard import errors


class Reason(StrEnum):
    """Name why a call failed; the values of `common.v1.ErrorReason`, which documents them."""

    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_NAME = "INVALID_NAME"
    INVALID_FILTER = "INVALID_FILTER"
    INVALID_ORDER = "INVALID_ORDER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - a reason, not a secret
    INVALID_CURSOR = "INVALID_CURSOR"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    INVALID_PATH = "INVALID_PATH"
    INVALID_MANIFEST = "INVALID_MANIFEST"
    INVALID_CREDENTIAL = "INVALID_CREDENTIAL"
    RIGHT_MISSING = "RIGHT_MISSING"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    ALIAS_MOVED = "ALIAS_MOVED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    WRONG_STATE = "WRONG_STATE"
    RESOURCE_IN_USE = "RESOURCE_IN_USE"
    BYTES_MISSING = "BYTES_MISSING"
    GATE_REFUSED = "GATE_REFUSED"
    PARAM_CHANGED = "PARAM_CHANGED"
    GOAL_MISSING = "GOAL_MISSING"
    NOTHING_TO_ROLL_BACK = "NOTHING_TO_ROLL_BACK"
    LEASE_LOST = "LEASE_LOST"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    SEQUENCE_GAP = "SEQUENCE_GAP"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    CORRUPT_BYTES = "CORRUPT_BYTES"
    INTERNAL = "INTERNAL"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    CANCELLED = "CANCELLED"
    CAPACITY_EXCEEDED = "CAPACITY_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Violation:
    """One request field that may not have the value it has."""

    field: str
    problem: str


class ServiceError(Exception):
    """A failure that the caller is told about, in words meant for the caller."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_seconds: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_seconds = retry_seconds
        self.metadata = metadata


def is_passing(error: ServiceError) -> bool:
    """Say whether it is of use to try again later, what is safe to repeat.

    A service with too much to do says when; without that, a limit was passed for good. A bug of
    another service (INTERNAL) may be one of this moment, so what never gives up tries again.
    """
    if error.reason is Reason.LIMIT_EXCEEDED:
        return error.retry_seconds is not None
    return error.reason in _PASSING


def may_pass(error: ServiceError) -> bool:
    """Say whether what never gives up tries again: also when a limit was passed for good.

    Others' ends may change that, or who raises it, or empties a disk.
    """
    return is_passing(error) or error.reason is Reason.LIMIT_EXCEEDED


def retry_after(error: Exception) -> float | None:
    """Return in how many seconds, at the soonest, to try again; None: what no later try mends.

    Args:
        error: a service's, as its own error or as the client's.
    """
    if isinstance(error, ServiceError) and is_passing(error):
        return error.retry_seconds or 0.0
    if isinstance(error, errors.ModelyardError) and errors.is_passing(error):
        return error.retry_delay or 0.0
    return None


_PASSING = frozenset(
    {
        Reason.SERVICE_UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED,
        Reason.CANCELLED,
        Reason.INTERNAL,
    }
)


def not_found(resource: object) -> ServiceError:
    """Say that a resource does not exist."""
    name = str(resource)
    return ServiceError(Reason.RESOURCE_NOT_FOUND, f"{name} does not exist", resource=name)


def already_exists(resource: object) -> ServiceError:
    """Say that a resource exists already."""
    name = str(resource)
    return ServiceError(Reason.RESOURCE_EXISTS, f"{name} exists already", resource=name)


def invalid_field(field: str, problem: str) -> ServiceError:
    """Say that a request field has a value it may not have."""
    return ServiceError(
        Reason.INVALID_FIELD,
        f"{field} {problem}",
        violations=[Violation(field, problem)],
        field=field,
    )


def etag_mismatch(resource: object, *, current: str) -> ServiceError:
    """Say that a resource changed since it was read."""
    name = str(resource)
    return ServiceError(
        Reason.ETAG_MISMATCH,
        f"{name} changed since it was read; read it again and retry",
        resource=name,
        etag=current,
    )


def wrong_state(resource: object, state: str, message: str) -> ServiceError:
    """Say that a resource is in a state that does not allow this."""
    name = str(resource)
    return ServiceError(Reason.WRONG_STATE, message, resource=name, state=state)
