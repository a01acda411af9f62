"""What a worker tries again: as long as it is of use, and not before it is told to."""

from __future__ import annotations

import time

import pytest
from modelyard.errors import ModelyardError, ResourceExhaustedError, UnavailableError

from services.builder.worker.patience import MAX_BUGS, Patience, persist
from services.common.errors import Reason, ServiceError

TOLD_SECONDS = 0.3


async def persisted(*errors: ServiceError | ModelyardError) -> int:
    """Fail with these, then not any more; return how many attempts that took."""
    left, attempts = list(errors), 0

    async def attempt() -> int:
        nonlocal attempts
        attempts += 1
        if left:
            raise left.pop(0)
        return attempts

    return await persist(attempt)


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Reason.LIMIT_EXCEEDED, "busy", retry_seconds=TOLD_SECONDS),
        ResourceExhaustedError("busy", retry_delay=TOLD_SECONDS),
        UnavailableError("away", retry_delay=TOLD_SECONDS),
    ],
)
async def test_what_passes_is_tried_again_when_told(error: ServiceError | ModelyardError) -> None:
    began = time.monotonic()
    assert await persisted(error) == 2
    assert time.monotonic() - began >= TOLD_SECONDS


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Reason.LIMIT_EXCEEDED, "full"),
        ServiceError(Reason.LEASE_LOST, "another has it"),
        ResourceExhaustedError("full"),
        ModelyardError("not yours", reason="RIGHT_MISSING"),
    ],
)
async def test_what_stays_so_is_told_at_once(error: ServiceError | ModelyardError) -> None:
    with pytest.raises(type(error)) as told:
        await persisted(error)
    assert told.value is error


async def test_a_bug_is_borne_some_times_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.builder.worker.patience.FIRST_DELAY", 0.0)
    patience, bug = Patience(), ServiceError(Reason.INTERNAL, "internal error")
    for _ in range(2):
        for _ in range(MAX_BUGS):
            await patience.bear(bug)
        with pytest.raises(ServiceError):
            await patience.bear(bug)
        patience.forgive()
