"""A stop waits for nobody who follows: each goes on at the next server, and misses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelyard import AsyncClient
from modelyard.builder.v1 import worker_service_pb2

from services.builder.settings import BuilderSettings
from services.common.rpc import status
from services.suite.start import free_port
from tests.contract.builder.stack import running
from tests.contract.builder.yard import Lease, Yard, lines, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GRACE = 60.0
"""Far more than a stop takes that waits for nobody, on a slow machine, too."""
TEXTS = ["1", "2", "3"]


async def test_a_stop_waits_for_no_stream_and_followers_go_on(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = BuilderSettings(
        database_url=f"sqlite:///{tmp_path / 'builder.db'}", lease_seconds=GRACE
    )
    async with AsyncExitStack() as clients:
        server = running(tmp_path, builder=settings, address=address, grace_seconds=GRACE)
        stack = await server.__aenter__()
        yard = await clients.enter_async_context(Yard.open(stack))
        client = await clients.enter_async_context(stack.client())
        channel = await clients.enter_async_context(grpc.aio.insecure_channel(address))
        name = (await yard.order()).name
        lease: Lease = (await yard.take()).lease
        await yard.send(lease, *((n, lines(text)) for n, text in enumerate(TEXTS, 1)))

        seen: list[str] = []
        follower = asyncio.create_task(_follow(client, name, seen))
        changes = client.changes.models()
        change = asyncio.ensure_future(anext(aiter(changes)))
        endings = [
            asyncio.create_task(_end(call)) for call in (yard.stream(name), _reporting(yard, lease))
        ]
        waiting = [
            asyncio.create_task(yard.take("idle", wait=GRACE)),
            asyncio.create_task(yard.extend(lease, wait=GRACE)),
            asyncio.create_task(_health(channel)),
        ]
        await until(lambda: _soon(seen == TEXTS))

        began = time.monotonic()
        await server.__aexit__(None, None, None)
        assert time.monotonic() - began < GRACE / 4
        assert await asyncio.gather(*endings) == ["SERVICE_UNAVAILABLE"] * 2
        leased, extended, told = await asyncio.gather(*waiting)
        assert not leased.HasField("build")
        assert not extended.cancel
        assert told == [SERVING, NOT_SERVING]
        async with running(tmp_path, builder=settings, address=address):
            await yard.send(lease, (len(TEXTS) + 1, lines("after")))
            await until(lambda: _soon(seen == [*TEXTS, "after"]))
            await client.models.create("told")
            assert (await change).model.name.endswith("/told")
        follower.cancel()


async def _follow(client: AsyncClient, build: str, seen: list[str]) -> None:
    async for event in client.builds.follow(build):
        if event.HasField("log"):
            seen.append(event.log.text)  # noqa: PERF401 - as they come


def _reporting(yard: Yard, lease: Lease) -> Any:
    async def requests() -> AsyncIterator[worker_service_pb2.ReportEventsRequest]:
        request = worker_service_pb2.ReportEventsRequest(lease=lease, sequence=1, batch=b"")
        yield request
        await asyncio.Event().wait()

    metadata = [("authorization", f"Bearer {yard.stack.token('worker')}")]
    return yard.workers.ReportEvents(requests(), metadata=metadata)


async def _end(call: Any) -> str:
    """Read a stream to its end; return the reason for it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return status.decode(caught.value).reason


async def _health(channel: grpc.aio.Channel) -> list[int]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return [told.status async for told in stub.Watch(health_pb2.HealthCheckRequest())]


async def _soon(value: bool) -> bool:
    return value
