"""Limits: what is over them is refused with when to come again; the published table is true."""

from __future__ import annotations

import pytest

from scripts import limits_table
from services.common.errors import Reason, ServiceError
from services.common.rpc.limiting import Limiter
from services.common.rpc.server import MAX_CONCURRENT_CALLS, ServerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(limiter: Limiter, principal: str, *, is_stream: bool = False) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        limiter.enter(principal, is_stream=is_stream)
    assert caught.value.reason is Reason.LIMIT_EXCEEDED
    return caught.value


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    clock = Clock()
    limiter = Limiter(calls_per_second=10, burst=3, clock=clock)
    for _ in range(3):
        limiter.enter("a", is_stream=False)
    error = refused(limiter, "a")
    assert error.metadata == {"limit": "calls_per_second", "maximum": "10"}
    assert error.retry_seconds == pytest.approx(0.1)
    limiter.enter("b", is_stream=False)
    clock.now += 0.11
    limiter.enter("a", is_stream=False)
    refused(limiter, "a")
    clock.now += 3600
    for _ in range(3):
        limiter.enter("a", is_stream=False)
    refused(limiter, "a")


def test_streams_are_counted_by_principal() -> None:
    limiter = Limiter(streams=2)
    for _ in range(2):
        limiter.enter("a", is_stream=True)
    assert refused(limiter, "a", is_stream=True).metadata["limit"] == "streams_of_a_principal"
    limiter.enter("b", is_stream=True)
    limiter.leave("a", is_stream=True)
    limiter.enter("a", is_stream=True)
    limiter.enter("a", is_stream=False)


def test_requests_that_do_not_come_are_counted_by_principal() -> None:
    limiter = Limiter(requests=1)
    limiter.await_request("a")
    with pytest.raises(ServiceError) as caught:
        limiter.await_request("a")
    assert caught.value.metadata["limit"] == "awaited_requests_of_a_principal"
    limiter.await_request("b")
    limiter.end_wait("a")
    limiter.await_request("a")


def test_one_principal_leaves_room_for_others() -> None:
    settings = ServerSettings()
    most = settings.streams_of_a_principal + settings.awaited_requests_of_a_principal
    assert 0 < most < MAX_CONCURRENT_CALLS


def test_the_published_table_is_what_the_code_says() -> None:
    assert limits_table.TARGET.read_text() == limits_table.table(), (
        "run python -m scripts.limits_table"
    )
