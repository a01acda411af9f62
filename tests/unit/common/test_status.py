"""What one service answers another is passed on as it was."""

from __future__ import annotations

import grpc
import pytest

from services.common.errors import Reason, ServiceError, Violation
from services.common.rpc import status


def passed_on(error: ServiceError) -> ServiceError:
    trailers = grpc.aio.Metadata((status.DETAILS_KEY, status.encode(error)))
    return status.decode(
        grpc.aio.AioRpcError(status.code_of(error), grpc.aio.Metadata(), trailers, error.message)
    )


@pytest.mark.parametrize("seconds", [None, 0.25, 30.0])
def test_when_to_come_again_is_passed_on(seconds: float | None) -> None:
    error = ServiceError(Reason.LIMIT_EXCEEDED, "slower", retry_seconds=seconds, limit="calls")
    found = passed_on(error)
    assert (found.reason, found.message) == (error.reason, error.message)
    assert (found.retry_seconds, found.metadata) == (seconds, error.metadata)
    assert status.encode(found) == status.encode(error)


def test_what_is_wrong_with_fields_is_passed_on() -> None:
    error = ServiceError(Reason.INVALID_FIELD, "no", violations=[Violation("name", "is odd")])
    assert passed_on(error).violations == error.violations
    assert passed_on(error).retry_seconds is None
