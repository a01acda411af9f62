"""The bars of events: how soon a line is seen, and how many a second."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.builder.setting import Setting
from benchmarks.runner import Measurement

FOLLOWERS = 10
RATE = 100
BURST = 100_000
# The first lines come while the followers' streams open.
WARM_LINES = 50


def measure(setting: Setting) -> Iterator[Measurement]:
    """Measure every bar."""
    yield from _latency(setting)
    yield from _burst(setting)


def _latency(setting: Setting) -> Iterator[Measurement]:
    lines = RATE * (5 if setting.scale.quick else 30)
    seen = sorted(asyncio.run(_followed(setting, lines)))
    if len(seen) != FOLLOWERS * (lines - WARM_LINES):
        raise RuntimeError(f"followers saw {len(seen)} lines")
    p50, p99 = (1e3 * seen[int(len(seen) * share)] for share in (0.5, 0.99))
    yield Measurement("line to 10 followers, p50", p50, [p50], [])
    yield Measurement("line to 10 followers, p99", p99, [p99], [])


async def _followed(setting: Setting, lines: int) -> list[float]:
    """Return of each line, at each follower, how many seconds after its printing it came."""
    async with setting.async_client() as client:
        params = {"lines": lines, "rate": RATE}
        order = await client.builds.create(setting.noop, model="noop", params=params)

        async def follow() -> list[float]:
            found = []
            async for message in client.builds.batches(order.name):
                now = time.time_ns()
                for event in message.events:
                    number, _, rest = event.log.text.partition(" ")
                    if number.isdecimal() and int(number) >= WARM_LINES:
                        found.append((now - int(rest.split()[0])) / 1e9)
            return found

        seen = await asyncio.gather(*(follow() for _ in range(FOLLOWERS)))
        return list(itertools.chain.from_iterable(seen))


def _burst(setting: Setting) -> Iterator[Measurement]:
    live, replayed, iterated = [], [], []
    for _ in range(setting.scale.repetitions):
        with setting.client() as client:
            order = client.builds.create(setting.noop, model="noop", params={"burst": BURST})
            live.append(_received(client.builds.batches(order.name)))
            client.builds.wait(order.name)
            replayed.append(_received(client.builds.batches(order.name)))
            started = time.perf_counter()
            count = sum(event.HasField("log") for event in client.builds.logs(order.name))
            iterated.append(count / (time.perf_counter() - started))
    yield Measurement("burst, lines/s", statistics.median(live), live, [])
    yield Measurement("replay, lines/s", statistics.median(replayed), replayed, iterated)


def _received(messages: Iterator[Any]) -> float:
    """Return how many of the burst's lines came a second, from the first to the last.

    Messages are timed as they come, decoded, and looked at afterwards.
    """
    arrived = [(time.perf_counter(), message) for message in messages]
    expected, times = 0, []
    for moment, message in arrived:
        words = (event.log.text.partition(" ")[0] for event in message.events)
        numbers = [int(word) for word in words if word.isdecimal()]
        if numbers != list(range(expected, expected + len(numbers))):
            raise RuntimeError(f"lines {numbers[0]} to {numbers[-1]} came after {expected - 1}")
        expected += len(numbers)
        times += [moment] if numbers else []
    if expected != BURST:
        raise RuntimeError(f"{expected} lines came")
    return BURST / (times[-1] - times[0])
