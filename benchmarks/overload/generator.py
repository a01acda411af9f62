"""A generator of calls in a process of its own: closed, or open to overload a server.

An open one begins calls at a constant rate whatever becomes of those before; a closed one has
some callers, each of whom calls again when he was answered. Nothing is ever called twice, but by
the channels of our own client when an order asks for them. One JSON order a line on standard input,
one answer each on standard output.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import uvloop
from google.rpc import error_details_pb2, status_pb2
from modelyard._transport.channel import open_async_channel
from modelyard._transport.config import ConnectionSettings
from modelyard.metadata.v1 import model_service_pb2, run_service_pb2

CONNECTIONS = 4
CALL_SECONDS = 5.0
MODEL = "projects/default/models/seeded"
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
_SERVICE = "/modelyard.metadata.v1"


@dataclass(frozen=True, slots=True)
class Order:
    """What to do."""

    address: str
    tokens: list[str]
    """Of those who call, one after the other."""
    seconds: float
    callers: int = 0
    """Of a closed generator; else 0."""
    rate: float = 0.0
    """Calls a second of an open generator."""
    retries: bool = False
    """Whether our client's channels make the calls, which try again what is refused."""


@dataclass(slots=True)
class Spread:
    """How long calls took, in seconds."""

    median: float = math.nan
    p99: float = math.nan

    @classmethod
    def of(cls, times: list[float]) -> Spread:
        """Return the spread of some times; of none it is not a number."""
        if not times:
            return cls()
        times = sorted(times)
        last = len(times) - 1
        return cls(times[last // 2], times[round(last * 0.99)])


@dataclass(slots=True)
class Seen:
    """What became of the calls; times in seconds, from when each was begun."""

    elapsed: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    told_when: int = 0
    """How many of the refusals said when to come again."""
    answered: Spread = field(default_factory=Spread)
    refused: Spread = field(default_factory=Spread)
    late: float = 0.0
    """By how much the generator itself began a call late, at most: it must be able to keep up."""


class Generator:
    """Makes the calls of one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._metadata = [(("authorization", f"Bearer {token}"),) for token in order.tokens]
        self._channels = [_channel(order) for _ in range(CONNECTIONS)]
        self._kinds = [self._methods(channel) for channel in self._channels]
        self._seen = Seen()
        self._answered: list[float] = []
        self._refused: list[float] = []

    async def run(self) -> Seen:
        """Make them all and wait for the last."""
        started = time.perf_counter()
        if self._order.callers:
            await self._closed(started + self._order.seconds)
        else:
            await self._open()
        self._seen.elapsed = time.perf_counter() - started
        self._seen.answered = Spread.of(self._answered)
        self._seen.refused = Spread.of(self._refused)
        for channel in self._channels:
            await channel.close()
        return self._seen

    async def _closed(self, end: float) -> None:
        async def caller(number: int) -> None:
            while time.perf_counter() < end:
                await self._call(number)
                number += self._order.callers

        await asyncio.gather(*(caller(number) for number in range(self._order.callers)))

    async def _open(self) -> None:
        number, started, calls = 0, time.perf_counter(), set[asyncio.Task[None]]()
        while (passed := time.perf_counter() - started) < self._order.seconds:
            while number < passed * self._order.rate:
                due = started + number / self._order.rate
                self._seen.late = max(self._seen.late, time.perf_counter() - due)
                task = asyncio.create_task(self._call(number))
                calls.add(task)
                task.add_done_callback(calls.discard)
                number += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)

    async def _call(self, number: int) -> None:
        method, request = next(self._kinds[number % CONNECTIONS])
        metadata = self._metadata[number % len(self._metadata)]
        begun = time.perf_counter()
        try:
            await method(request, metadata=metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._note(error, time.perf_counter() - begun)
        else:
            self._count("OK")
            self._answered.append(time.perf_counter() - begun)

    def _note(self, error: grpc.aio.AioRpcError, seconds: float) -> None:
        self._count(error.code().name)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._refused.append(seconds)
            wire = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            details = status_pb2.Status.FromString(bytes(wire)).details
            retry = error_details_pb2.RetryInfo.DESCRIPTOR
            self._seen.told_when += any(detail.Is(retry) for detail in details)

    def _count(self, code: str) -> None:
        self._seen.codes[code] = self._seen.codes.get(code, 0) + 1

    def _methods(self, channel: grpc.aio.Channel) -> Iterator[tuple[Any, bytes]]:
        """Yield a mix without end: of four calls one creates, one lists and two get."""
        create: Any = channel.unary_unary(f"{_SERVICE}.RunService/CreateRun")
        found: Any = channel.unary_unary(f"{_SERVICE}.RunService/ListRuns")
        get: Any = channel.unary_unary(f"{_SERVICE}.ModelService/GetModel")
        page = run_service_pb2.ListRunsRequest(parent=MODEL, page_size=20).SerializeToString()
        model = model_service_pb2.GetModelRequest(name=MODEL).SerializeToString()
        while True:
            yield get, model
            yield create, _new_run()
            yield get, model
            yield found, page


def _channel(order: Order) -> grpc.aio.Channel:
    if order.retries:
        return open_async_channel(ConnectionSettings(order.address))
    return grpc.aio.insecure_channel(order.address, _OPTIONS)


def _new_run() -> bytes:
    request = run_service_pb2.CreateRunRequest(parent=MODEL, request_id=str(uuid.uuid4()))
    return bytes(request.SerializeToString())


def main() -> None:
    """Carry out orders until standard input ends."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        seen = uvloop.run(_carry_out(order))
        print(json.dumps(asdict(seen)), flush=True)


async def _carry_out(order: Order) -> Seen:
    return await Generator(order).run()


if __name__ == "__main__":
    main()
