"""The client's exceptions: one class per status, told apart further by `reason`.

A reason is the name of a `modelyard.common.v1.ErrorReason` without its prefix,
such as `ALIAS_MOVED`; it is stable, and `metadata` holds the facts it documents.
This module imports neither grpc nor protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """Say which field of a request has a value it may not have, and why."""

    field: str
    problem: str


class ModelyardError(Exception):
    """Any failure that the client reports.

    Attributes:
        message: What happened, for a person.
        reason: What happened, for a program, such as `RESOURCE_NOT_FOUND`.
        code: The status it came with, such as `NOT_FOUND`; empty for a failure
            that never was a call.
        metadata: The facts that the reason documents.
        violations: What is wrong with the request, field by field.
        retry_delay: After how many seconds to try again, if the server said so.
    """

    default_code = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason or self.code
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.retry_delay = retry_delay

    def __str__(self) -> str:
        untold = [v for v in self.violations if f"{v.field} {v.problem}" not in self.message]
        details = "".join(f"\n  {v.field}: {v.problem}" for v in untold)
        error_id = self.metadata.get("error_id")
        named = f"{self.reason}, error {error_id}" if error_id else self.reason
        reason = f" ({named})" if named else ""
        return f"{self.message}{reason}{details}"


class ConfigError(ModelyardError):
    """The client does not know its server, or its configuration is bad."""


class InvalidArgumentError(ModelyardError, ValueError):
    """The request itself is wrong; it will never succeed as it is."""

    default_code = "INVALID_ARGUMENT"


class UnauthenticatedError(ModelyardError):
    """There is no valid credential."""

    default_code = "UNAUTHENTICATED"


class PermissionDeniedError(ModelyardError):
    """The caller lacks the right, whether or not the resource exists."""

    default_code = "PERMISSION_DENIED"


class NotFoundError(ModelyardError):
    """The resource does not exist."""

    default_code = "NOT_FOUND"


class AlreadyExistsError(ModelyardError):
    """The resource exists."""

    default_code = "ALREADY_EXISTS"


class FailedPreconditionError(ModelyardError):
    """Something must change before this can be done."""

    default_code = "FAILED_PRECONDITION"


class GateRefusedError(FailedPreconditionError):
    """A gate of the environment refused the version; metadata says which and why."""


class AbortedError(ModelyardError):
    """Somebody else was quicker: read again, then decide."""

    default_code = "ABORTED"


class OutOfRangeError(ModelyardError):
    """An offset, a cursor or a sequence lies outside of what there is."""

    default_code = "OUT_OF_RANGE"


class ResourceExhaustedError(ModelyardError):
    """A published limit was passed."""

    default_code = "RESOURCE_EXHAUSTED"


class UnavailableError(ModelyardError):
    """The server cannot be reached or is going down; try again later."""

    default_code = "UNAVAILABLE"


class DeadlineExceededError(ModelyardError):
    """The call took longer than it may; whether it took effect is unknown."""

    default_code = "DEADLINE_EXCEEDED"


class CancelledError(ModelyardError):
    """The call was cancelled."""

    default_code = "CANCELLED"


class UnimplementedError(ModelyardError):
    """The server does not know the method: it is older than the client."""

    default_code = "UNIMPLEMENTED"


class DataLossError(ModelyardError):
    """Bytes do not have the digest they must have."""

    default_code = "DATA_LOSS"


class InternalError(ModelyardError):
    """A bug in the server; `metadata["error_id"]` finds it in the server's log."""

    default_code = "INTERNAL"


BY_CODE: Mapping[str, type[ModelyardError]] = {
    kind.default_code: kind
    for kind in (
        InvalidArgumentError,
        UnauthenticatedError,
        PermissionDeniedError,
        NotFoundError,
        AlreadyExistsError,
        FailedPreconditionError,
        AbortedError,
        OutOfRangeError,
        ResourceExhaustedError,
        UnavailableError,
        DeadlineExceededError,
        CancelledError,
        UnimplementedError,
        DataLossError,
        InternalError,
    )
}

BY_REASON: Mapping[str, type[ModelyardError]] = {"GATE_REFUSED": GateRefusedError}


def is_passing(error: ModelyardError) -> bool:
    """Say whether it is of use to try again later, what is safe to repeat.

    A server with too much to do says when; without that, a limit was passed for good. One that
    goes down, or a proxy before it, may also end what is under way as cancelled or as too late.
    """
    if isinstance(error, ResourceExhaustedError):
        return error.retry_delay is not None
    return isinstance(error, (UnavailableError, CancelledError, DeadlineExceededError))
