"""Followers see every event once and in order, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.common.events import POLL_SECONDS, EventBus, tail
from services.common.sql.database import Database, Transaction
from tests.servers.valkey import ValkeyServer


@asynccontextmanager
async def _bus(url: str | None) -> AsyncIterator[EventBus]:
    bus = EventBus(url, service="contract")
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(database: Database, bus: EventBus, after: int, last: int) -> list[int]:
    seen: list[int] = []
    async for events in tail(database, bus, "t", after):
        assert all(event.payload == str(event.sequence).encode() for event in events)
        seen += [event.sequence for event in events]
        if seen and seen[-1] >= last:
            return seen
    raise AssertionError


async def _publish(database: Database, first: int, last: int, pause: float = 0) -> None:
    for sequence in range(first, last + 1):
        payload = str(sequence).encode()
        await database.write(
            functools.partial(Transaction.publish, topic="t", kind="k", payload=payload)
        )
        await asyncio.sleep(pause)


async def test_without_redis_the_ledger_is_enough(database: Database) -> None:
    async with _bus(None) as bus, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        early = tasks.create_task(_follow(database, bus, 0, 300))
        await _publish(database, 1, 150)
        late = tasks.create_task(_follow(database, bus, 100, 300))
        await _publish(database, 151, 300)
    assert early.result() == list(range(1, 301))
    assert late.result() == list(range(101, 301))


async def test_redis_carries_events_between_processes(
    database: Database, valkey: ValkeyServer
) -> None:
    async with _bus(valkey.url) as here, _bus(valkey.url) as there, asyncio.timeout(30):
        database.on_commit(here.publish)
        stream = tail(database, there, "t", 0)
        # The first event may come by the ledger, while the reader still joins.
        await _publish(database, 1, 1)
        assert [event.sequence for event in await anext(stream)] == [1]
        waits = []
        for sequence in range(2, 12):
            receive = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            await _publish(database, sequence, sequence)
            assert [event.sequence for event in await receive] == [sequence]
            waits.append(time.monotonic() - started)
        await stream.aclose()
    assert sorted(waits)[len(waits) // 2] < POLL_SECONDS / 4


async def test_no_gap_and_no_repeat_while_redis_dies_and_comes_back(
    database: Database, valkey: ValkeyServer
) -> None:
    total = 300

    async def disturb() -> None:
        loop = asyncio.get_running_loop()
        for step in (valkey.flush, valkey.stop, valkey.start, valkey.flush):
            await asyncio.sleep(0.6)
            await loop.run_in_executor(None, step)

    async with _bus(valkey.url) as here, _bus(valkey.url) as there, asyncio.timeout(60):
        database.on_commit(here.publish)
        async with asyncio.TaskGroup() as tasks:
            followers = [
                tasks.create_task(_follow(database, bus, 0, total)) for bus in (here, there, there)
            ]
            tasks.create_task(disturb())
            await _publish(database, 1, total, pause=0.01)
    for follower in followers:
        assert follower.result() == list(range(1, total + 1))


async def test_who_gets_all_live_does_not_ask_the_ledger(
    database: Database, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of the process itself come back from Redis: a follower is not woken again for them."""
    reads = 0

    async def counted(work: Any) -> Any:
        nonlocal reads
        reads += 1
        return await Database.read(database, work)

    monkeypatch.setattr(database, "read", counted)
    async with _bus(valkey.url) as bus, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        database.on_commit(bus.publish)
        follower = tasks.create_task(_follow(database, bus, 0, 40))
        await _publish(database, 1, 40, pause=0.02)
    assert follower.result() == list(range(1, 41))
    assert reads < 20  # one to begin, and one whenever a second passes quietly


async def test_redis_that_never_was_costs_delay_only(database: Database, tmp_path: object) -> None:
    async with _bus(f"unix://{tmp_path}/nobody") as bus, asyncio.timeout(20):
        database.on_commit(bus.publish)
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(_follow(database, bus, 0, 50))
            await _publish(database, 1, 50, pause=0.001)
    assert follower.result() == list(range(1, 51))


async def test_two_databases_topics_do_not_mix(database: Database, valkey: ValkeyServer) -> None:
    async with _bus(valkey.url) as bus, asyncio.timeout(20):
        database.on_commit(bus.publish)
        await database.write(lambda tx: tx.publish("other", "k", b"x"))
        stream = tail(database, bus, "t", 0)
        receive = asyncio.ensure_future(anext(stream))
        await database.write(lambda tx: tx.publish("other", "k", b"x"))
        await _publish(database, 1, 1)
        assert [(event.topic, event.sequence) for event in await receive] == [("t", 1)]
        await stream.aclose()


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_follower_begins_after_its_cursor(database: Database, after: int) -> None:
    async with _bus(None) as bus, asyncio.timeout(20):
        await _publish(database, 1, 6)
        assert await _follow(database, bus, after, 6) == list(range(after + 1, 7))
