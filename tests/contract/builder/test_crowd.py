"""Many lines, many followers, some of them bad: the good ones get every line in order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
import pytest

from tests.contract.builder.yard import Yard, lines

BATCH = 1_000
MIB = 1024 * 1024


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Any) -> tuple[str, str]:
    """With Redis in between, where there is the most that could grow."""
    return f"sqlite:///{tmp_path / 'builder.db'}", request.getfixturevalue("valkey").url


@pytest.fixture
def lease_seconds() -> float:
    """Nobody falls silent here."""
    return 600.0


class Follower:
    """Takes note of lines without keeping them."""

    def __init__(self, yard: Yard, build: str) -> None:
        self.yard = yard
        self.build = build
        self.cursor = ""
        self.count = 0
        self.breaks = 0

    async def follow(self, *, most: int = 1 << 40) -> None:
        """Read to the end, or so many messages; each line must follow the one before."""
        stream = self.yard.stream(self.build, self.cursor)
        async for message in stream:
            self.cursor = message.cursor
            events = message.events
            if events and events[0].HasField("log"):  # a batch of lines holds nothing else
                assert int(events[0].log.text.split()[0]) == self.count
                self.count += len(events)
                assert int(events[-1].log.text.split()[0]) == self.count - 1
            most -= 1
            if not most:
                stream.cancel()
                return

    async def reconnecting(self, total: int) -> None:
        """Read a little, break off, go on from the last cursor."""
        while self.count < total:
            await self.follow(most=7)
            self.breaks += 1


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize(
    ("total", "healthy"),
    [(100_000, 7), pytest.param(1_000_000, 47, marks=pytest.mark.slow)],
)
async def test_good_followers_get_every_line_whatever_bad_ones_do(
    yard: Yard, total: int, healthy: int
) -> None:
    build = (await yard.order()).name
    lease = (await yard.take()).lease
    deaf = [yard.stream(build) for _ in range(2)]
    for stream in deaf:
        await stream.read()  # it is open, and never read again
    followers = [Follower(yard, build) for _ in range(healthy)]
    restless = Follower(yard, build)
    before = psutil.Process().memory_info().rss
    waits: list[float] = []
    started = time.monotonic()
    async with asyncio.timeout(1_200), asyncio.TaskGroup() as tasks:
        for follower in followers:
            tasks.create_task(follower.follow())
        tasks.create_task(restless.reconnecting(total))
        for number in range(total // BATCH):
            first = number * BATCH
            batch = lines(
                *(f"{n} a line as training prints them" for n in range(first, first + BATCH))
            )
            began = time.monotonic()
            assert await yard.send(lease, (number + 1, batch)) == [number + 1]
            waits.append(time.monotonic() - began)
        await yard.end(lease, "TRAIN_FAILED")
    assert {follower.count for follower in (*followers, restless)} == {total}
    took = time.monotonic() - started
    grown = psutil.Process().memory_info().rss - before
    waits.sort()
    median, worst = waits[len(waits) // 2], waits[-1]
    print(f"{total:,} lines to {healthy + 1} in {took:.0f} s; {restless.breaks} times anew")
    print(f"acknowledged after {median:.3f} s, {worst:.3f} s at most; {grown / MIB:.0f} MiB more")
    assert grown < 150 * MIB, f"{grown / MIB:.0f} MiB more, client and service together"
    for stream in deaf:
        stream.cancel()
