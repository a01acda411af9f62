"""The ledger: batches kept once and in order, read from any cursor, live and afterwards."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from modelyard.builder.v1 import build_event_pb2, build_pb2, build_service_pb2

from services.builder.settings import BuilderSettings
from services.builder.trimming import Trimming
from services.builder.wiring import MIGRATIONS
from services.common.sql.database import Database
from tests.contract.builder.conftest import Start
from tests.contract.builder.stack import Stack, replica
from tests.contract.builder.yard import Yard, lines, refused
from tests.servers.valkey import ValkeyServer

MAX_BATCH = 256 * 1024
STDOUT, STDERR = build_event_pb2.LOG_STREAM_STDOUT, build_event_pb2.LOG_STREAM_STDERR


@pytest.fixture
def lease_seconds() -> float:
    """Nobody falls silent here."""
    return 60.0


def texts(events: list[Any]) -> list[str]:
    return [event.log.text for event in events if event.HasField("log")]


async def test_duplicates_change_nothing_and_gaps_are_refused(yard: Yard) -> None:
    order = await yard.order()
    lease = (await yard.take()).lease
    assert await yard.send(lease, (1, lines("a")), (2, lines("b", "c"))) == [1, 2]
    assert await yard.send(lease, (1, lines("a")), (2, lines("other")), (3, lines("d"))) == [
        2,
        2,
        3,
    ]
    gap = await refused(yard.send(lease, (5, lines("f"))), "SEQUENCE_GAP")
    assert gap.metadata == {"acknowledged_sequence": "3"}
    assert texts(await yard.events(order.name, no_follow=True)) == ["a", "b", "c", "d"]


async def test_bad_batches_are_refused(yard: Yard) -> None:
    await yard.order()
    lease = (await yard.take()).lease
    await refused(yard.send(lease, (1, b"\xff\xff\xff")), "INVALID_FIELD")
    await refused(yard.send(lease, (0, lines("a"))), "INVALID_FIELD")
    await refused(yard.send(lease, (1, lines("x" * MAX_BATCH))), "LIMIT_EXCEEDED")


async def test_followers_see_the_same_from_any_cursor_live_and_afterwards(yard: Yard) -> None:
    order = await yard.order()
    live = asyncio.create_task(collect(yard, order.name))
    late_follower = asyncio.create_task(collect(yard, order.name))
    lease = (await yard.take()).lease
    for number in range(1, 31):
        await yard.send(lease, (number, lines(f"line {number}")))
    await yard.end(lease, "TRAIN_FAILED")
    seen = await asyncio.wait_for(live, 15)
    assert await asyncio.wait_for(late_follower, 15) == seen
    assert texts([e for e, _ in seen]) == [f"line {n}" for n in range(1, 31)]
    assert seen[-1][0].state_changed.state == build_pb2.BUILD_STATE_FAILED

    assert await collect(yard, order.name) == seen
    for position in (0, 7, len(seen) - 2, len(seen) - 1):
        cursor = seen[position][1]
        assert await collect(yard, order.name, cursor) == seen[position + 1 :]


async def collect(yard: Yard, build: str, cursor: str = "") -> list[tuple[Any, str]]:
    """Read a stream to its end: each event with the cursor after it, one event a batch."""
    found: list[tuple[Any, str]] = []
    async for message in yard.stream(build, cursor):
        found += [(event, message.cursor) for event in message.events]
    return found


async def test_a_cursor_goes_on_after_a_restart(start: Start) -> None:
    async with start() as yard:
        order = await yard.order()
        lease = (await yard.take()).lease
        await yard.send(lease, (1, lines("before")))
        *_, (_, cursor) = [
            (e, m.cursor) async for m in yard.stream(order.name, no_follow=True) for e in m.events
        ]
    async with start() as yard:
        await yard.send(lease, (2, lines("after")))
        await yard.end(lease, "TRAIN_FAILED")
        assert texts(await yard.events(order.name, cursor)) == ["after"]


async def test_foreign_cursors_are_refused(yard: Yard) -> None:
    one, other = await yard.order(), await yard.order()
    messages = [m async for m in yard.stream(one.name, no_follow=True)]
    for build, cursor in ((other.name, messages[0].cursor), (one.name, "garbled")):
        await refused(yard.events(build, cursor), "INVALID_CURSOR")


async def test_orders_are_checked(yard: Yard) -> None:
    missing = f"projects/default/artifacts/{'0' * 64}"
    await refused(yard.order(source=missing), "BYTES_MISSING")
    await refused(yard.order(source="projects/other/artifacts/" + "0" * 64), "INVALID_NAME")
    await refused(yard.order(entry="not a class"), "INVALID_FIELD")
    await refused(yard.order(python_version="2.7"), "INVALID_FIELD")
    await refused(yard.order(aliases=["Not An Id"]), "INVALID_NAME")
    await refused(yard.get("projects/default/builds/nothing"), "RESOURCE_NOT_FOUND")


async def test_a_repeated_order_is_one_order(yard: Yard) -> None:
    spec = build_pb2.BuildSpec(source=yard.source)
    spec.params["depth"].int_value = 3
    spec.params["rate"].float_value = float("nan")
    request_id = "5b1f7f0a-8a62-4a52-9a53-0d8a2b6f8f4e"
    first = await yard.create(spec, request_id=request_id)
    assert (await yard.create(spec, request_id=request_id)).name == first.name
    assert first.spec.params["depth"].int_value == 3
    assert first.spec.params["rate"].float_value != first.spec.params["rate"].float_value
    spec.params["depth"].int_value = 4
    await refused(yard.create(spec, request_id=request_id), "REQUEST_ID_REUSED")


async def test_lists_are_filtered_and_paged_newest_first(yard: Yard) -> None:
    spec = build_pb2.BuildSpec(source=yard.source)
    names = [(await yard.create(spec, model=f"m{n % 2}")).name for n in range(5)]
    labelled = await yard.order(labels={"team": "risk"})
    await yard.cancel(names[0])

    async def page(token: str = "", where: str = "", size: int = 2) -> Any:
        request = build_service_pb2.ListBuildsRequest(
            parent="projects/default", page_size=size, page_token=token, filter=where
        )
        return await yard.admin(yard.builds.ListBuilds, request)

    found, token = [], ""
    while True:
        answer = await page(token)
        found += [build.name for build in answer.builds]
        token = answer.next_page_token
        if not token:
            break
    assert found == [labelled.name, *reversed(names)]
    cancelled = await page(where="state = CANCELLED")
    assert [b.name for b in cancelled.builds] == names[:1]
    assert len((await page(where='model = "m0"', size=9)).builds) == 3
    assert len((await page(where='labels.team = "risk"', size=9)).builds) == 1
    await refused(page(where="nonsense = 1"), "INVALID_FILTER")


async def test_filters_send_what_is_wanted_and_cursors_go_on(yard: Yard) -> None:
    order = await yard.order()
    lease = (await yard.take()).lease
    stamp = timestamp_pb2.Timestamp
    for number in range(1, 7):
        batch = build_event_pb2.BuildEventBatch()
        for part in range(10):
            event = batch.events.add(time=stamp(seconds=1_000 * number), phase=number)
            event.log.text = f"step {number}.{part} loss=0.{part}"
            event.log.stream = STDERR if part % 2 else STDOUT
        batch.events.add(time=stamp(seconds=1_000 * number)).metric.key = "loss"
        await yard.send(lease, (number, batch.SerializeToString()))

    async def wanted(cursor: str = "", **filters: Any) -> list[str]:
        found = await yard.events(order.name, cursor, no_follow=True, **filters)
        return [e.log.text or e.WhichOneof("kind") for e in found]

    assert await wanted(grep=r"^step [23]\.7\b") == ["step 2.7 loss=0.7", "step 3.7 loss=0.7"]
    assert len(await wanted(stream=STDERR)) == 30
    assert len(await wanted(phase=2)) == 10
    since = await wanted(since_time=stamp(seconds=6_000), grep="0.[01]$")
    assert since == ["step 6.0 loss=0.0", "step 6.1 loss=0.1"]
    # What the builder itself told has the time of now.
    assert len(await wanted(since_time=stamp(seconds=7_000))) == 2
    assert await wanted(tail=2) == ["step 6.9 loss=0.9", "metric"]
    last = await wanted(tail=13, stream=STDOUT)
    assert (len(last), last[0], last[-1]) == (13, "step 4.4 loss=0.4", "step 6.8 loss=0.8")
    assert len(await wanted(tail=10_000)) == 68
    assert await wanted(grep="nothing like it") == []

    cursors = [m.cursor async for m in yard.stream(order.name, no_follow=True, grep=r"3\.7")]
    assert await wanted(cursors[0], grep=r"\.7") == [f"step {n}.7 loss=0.7" for n in (4, 5, 6)]
    assert await wanted(cursors[0], phase=6, tail=1) == await wanted(phase=6)

    following = asyncio.create_task(yard.events(order.name, grep="^late", tail=1))
    await yard.send(lease, (7, lines("late 1", "other")), (8, lines("late 2")))
    await yard.end(lease, "TRAIN_FAILED")
    assert texts(await asyncio.wait_for(following, 15)) in (["late 1", "late 2"], ["late 2"])
    for bad in ({"grep": "("}, {"grep": "x" * 1_001}, {"tail": -1}, {"stream": 9}, {"phase": 9}):
        await refused(wanted(**bad), "INVALID_FIELD")


async def test_a_grep_that_would_backtrack_for_ever_does_not(yard: Yard) -> None:
    order = await yard.order()
    lease = (await yard.take()).lease
    await yard.send(lease, (1, lines(*["a" * 16_000] * 10)))
    found = await asyncio.wait_for(yard.events(order.name, no_follow=True, grep="(a*)*$b"), 5)
    assert found == []


@pytest.mark.parametrize("backend", ["postgres-valkey"], indirect=True)
async def test_followers_on_two_replicas_and_a_redis_that_dies(
    start: Start, backend: tuple[str, str], valkey: ValkeyServer
) -> None:
    settings = BuilderSettings(database_url=backend[0])
    async with (
        start() as yard,
        replica(yard.stack, builder=settings, redis_url=valkey.url) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        other = yard.at(channel)
        order = await yard.order()
        live = [asyncio.create_task(collect(place, order.name)) for place in (yard, other, other)]
        lease = (await yard.take()).lease
        watching = asyncio.create_task(other.extend(lease, wait=20))
        for number in range(1, 41):
            where = other if number % 2 else yard
            await where.send(lease, (number, lines(f"line {number}")))
            if number == 15:
                await asyncio.to_thread(valkey.flush)
            if number == 25:
                await asyncio.to_thread(valkey.stop)
        await yard.cancel(order.name)
        # Without Redis the other replica looks by itself.
        assert (await asyncio.wait_for(watching, 2)).cancel
        await other.end(lease)
        seen = await asyncio.wait_for(asyncio.gather(*live), 20)
        assert seen[0] == seen[1] == seen[2]
        assert texts([e for e, _ in seen[0]]) == [f"line {n}" for n in range(1, 41)]


async def test_old_events_are_trimmed_and_old_cursors_expire(stack: Stack, tmp_path: Path) -> None:
    async with Yard.open(stack) as yard:
        order = await yard.order()
        (first,) = [m.cursor async for m in yard.stream(order.name, no_follow=True)]
        lease = (await yard.take()).lease
        await yard.send(lease, (1, lines("a")), (2, lines("b")))
        await yard.end(lease, "TRAIN_FAILED")
        running = await yard.order()
        later = datetime.now(UTC) + timedelta(days=3)
        url = f"sqlite:///{tmp_path / 'builder.db'}"
        database = Database.open(url, migrations=MIGRATIONS)
        await Trimming(database=database, clock=lambda: later, age=timedelta(days=4)).trim()
        assert texts(await yard.events(order.name)) == ["a", "b"]
        await Trimming(database=database, clock=lambda: later, age=timedelta(days=2)).trim()
        kept = await yard.events(order.name)
        assert [e.state_changed.state for e in kept] == [build_pb2.BUILD_STATE_FAILED]
        await refused(yard.events(order.name, first), "CURSOR_EXPIRED")
        assert len(await yard.events(running.name, no_follow=True)) == 1
        assert (await yard.take(wait=0)).build.name == running.name
        database.close()
