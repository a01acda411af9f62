"""The ledger: batches kept once and in order, read from any cursor, live and afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

from modelyard.builder.v1 import build_pb2, build_service_pb2

from tests.contract.builder.conftest import Start
from tests.contract.builder.yard import Yard, lines, refused

MAX_BATCH = 256 * 1024


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
        try:
            await yard.events(build, cursor)
        except Exception as error:
            assert "cursor" in str(error)  # noqa: PT017 - raised by grpc, in a stream
        else:
            raise AssertionError(cursor)


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
