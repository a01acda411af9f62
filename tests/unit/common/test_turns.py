"""Turns: principals share what a service can do at a time, whoever asks for how much."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from services.common.errors import Reason, ServiceError
from services.common.rpc.turns import Turns


class Calls:
    """Calls that wait for their turn, and the order in which they get it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []

    async def begin(self, principals: Iterable[str]) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._take(principal)) for principal in principals]
        await settled()
        return tasks

    async def _take(self, principal: str) -> None:
        await self.turns.take(principal)
        self.served.append(principal)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(3):
        await asyncio.sleep(0)


async def finish(turns: Turns, count: int) -> None:
    for _ in range(count):
        turns.give_back()
        await settled()


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_much() -> None:
    calls = Calls(Turns(2, 100))
    await calls.begin(["much"] * 40)
    await calls.begin(["little", "other"])
    assert calls.served == ["much"] * 2
    await finish(calls.turns, 4)
    assert calls.served[2:] == ["much", "little", "other", "much"]
    await finish(calls.turns, 38)
    assert calls.served.count("much") == 40
    assert not calls.turns.are_all_taken


async def test_there_is_always_room_for_another_principal() -> None:
    calls = Calls(Turns(1, 40))
    tasks = await calls.begin(["much"] * 50)
    refused = [task.exception() for task in tasks if task.done() and task.exception()]
    assert len(refused) == 50 - 1 - 30
    for error in refused:
        assert isinstance(error, ServiceError)
        assert error.reason is Reason.LIMIT_EXCEEDED
        assert error.retry_seconds
    assert calls.turns.are_out("much")
    assert not calls.turns.are_out("little")
    await calls.begin(["little"])
    await finish(calls.turns, 2)
    assert calls.served == ["much", "much", "little"]
    assert not calls.turns.are_out("much")


@pytest.mark.parametrize("given", [0, 1, 2])
async def test_no_turn_is_lost_with_callers_who_leave(given: int) -> None:
    """Callers leave while they wait, and in the moment in which they are given a turn."""
    calls = Calls(Turns(2, 100))
    waiting = (await calls.begin(["a"] * 2 + ["b"] * 5))[2:]
    for task in waiting[:2]:
        task.cancel()  # they are told with the next step of the loop
    for _ in range(given):
        calls.turns.give_back()
    for task in waiting[2:4]:
        task.cancel()
    await settled()
    while given < len(calls.served):
        await finish(calls.turns, 1)
        given += 1
    assert not calls.turns.are_all_taken
    more = await calls.begin(["c"] * 2)
    assert all(task.done() for task in more)
    assert calls.turns.are_all_taken


async def test_without_a_limit_all_are_let_in() -> None:
    calls = Calls(Turns(0, 0))
    await calls.begin(["a"] * 100)
    assert len(calls.served) == 100
