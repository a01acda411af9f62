"""The shipped proxy holds no more than it may, whoever sends what has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient

from tests.rpc.common.test_pipeline import BUILD, bearer
from tests.rpc.common.test_proxy_sheds import proxied
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.slow
MIB = 2**20
LIMIT = 256 * MIB
PIECE = bytes(450_000)
CALLS, CONNECTIONS = 900, 18  # half as much again as there may be
SECONDS = 120.0
PATH = "/modelyard.builder.v1.BuildService/GetBuild"
CHANGES = {
    "max_heap_size_bytes: 1073741824": f"max_heap_size_bytes: {LIMIT}",
    # What memory does not end, nothing else ends here.
    "max_stream_duration: 65s": "max_stream_duration: 3600s",
}
LATE = {
    "refresh_interval: 0.1s": "refresh_interval: 5s",
    "interval: 10s, timeout: 30s": "interval: 1s, timeout: 30s",
}
PERCENT = r"overload\.envoy\.resource_monitors\.fixed_heap\.pressure"
RESET = r"envoy\.overload_actions\.reset_high_memory_stream\.count"


class Endless:
    """Unary calls part of whose request is there, and whose end never comes."""

    def __init__(self, address: str) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
        self._channels: list[Any] = [
            grpc.aio.insecure_channel(address, options=own) for _ in range(CONNECTIONS)
        ]
        self._calls: list[Any] = [
            channel.stream_unary(PATH)(self._pieces(), metadata=bearer("reader"))
            for channel in self._channels
            for _ in range(CALLS // CONNECTIONS)
        ]
        self._sent = 0

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield PIECE
        self._sent += 1
        await asyncio.Event().wait()

    def are_sent(self) -> bool:
        """Say whether of each call a part was sent, unless it was ended before."""
        ended = sum(1 for call in self._calls if call.done())
        return self._sent + ended >= CALLS

    async def close(self) -> None:
        """End them."""
        for call in self._calls:
            call.cancel()
        for channel in self._channels:
            await channel.close()


@dataclass(frozen=True, slots=True)
class Attacked:
    """A proxy to which calls without an end come, and somebody else."""

    proxy: Proxy
    endless: Endless
    other: AsyncClient

    async def percent(self) -> int:
        """Return how much of what it may the proxy holds."""
        return await asyncio.to_thread(self.proxy.counted, PERCENT)


@asynccontextmanager
async def attacked(folder: Path, changes: dict[str, str]) -> AsyncIterator[Attacked]:
    async with (
        proxied(folder / "proxy", CHANGES | changes) as behind,
        AsyncClient(behind.proxy.address, token="writer", timeout=SECONDS) as other,
        asyncio.timeout(SECONDS),
    ):
        endless = Endless(behind.proxy.address)
        try:
            yield Attacked(behind.proxy, endless, other)
        finally:
            await endless.close()


async def test_calls_without_an_end_take_no_more_memory_than_there_is(tmp_path: Path) -> None:
    async with attacked(tmp_path, {}) as attack:
        while not attack.endless.are_sent() or await attack.percent() >= 100:
            assert (await attack.other.builds.get(BUILD)).name == BUILD
        assert await asyncio.to_thread(attack.proxy.counted, RESET)


async def test_what_came_too_fast_to_be_noticed_does_not_stay(tmp_path: Path) -> None:
    async with attacked(tmp_path, LATE) as attack:
        while await attack.percent() < 100 or not attack.endless.are_sent():
            assert attack.proxy.process.poll() is None
        while await attack.percent() >= 100:
            assert attack.proxy.process.poll() is None
        assert (await attack.other.builds.get(BUILD)).name == BUILD
