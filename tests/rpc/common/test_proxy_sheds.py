"""The shipped proxy refuses what is too much, in the services' own words, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2
from modelyard import AsyncClient
from modelyard.builder.v1 import (
    build_service_pb2,
    build_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

from services.common.auth import current_call
from services.common.rpc import status
from services.common.rpc.interceptors import Chain
from services.common.rpc.limiting import rate_exceeded
from services.common.rpc.server import MAX_REQUEST_BYTES, Server, ServerSettings
from services.common.rpc.turns import no_turn
from services.common.telemetry import Telemetry
from tests.rpc.common.test_pipeline import BUILD, Builds, Tokens, bearer
from tests.servers.processes import free_port
from tests.servers.proxy import Proxy, start_proxy, too_long

HELD = "projects/p/builds/held"
SECONDS = 60.0
SHARE, BEYOND = 40, 128
RATE = "max_tokens: 10000, tokens_per_fill: 5000, fill_interval: 1s"
FILL = f"max_tokens: {SHARE}, tokens_per_fill: 20, fill_interval: 1s"
PROCESS_FILL = "max_tokens: 1000, tokens_per_fill: 500, fill_interval: 1s"
OVERFLOW = r"cluster\.builder\.upstream_rq_active_overflow"
OVER_SHARE = r"share\.http_local_rate_limit\.rate_limited"


class Attempts(Builds):
    """Remembers at which attempt each call came that was not the first."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[str] = []

    async def GetBuild(self, request: Any, context: Any) -> Any:
        attempt = current_call().metadata.get("grpc-previous-rpc-attempts")
        self.attempts += [attempt] if attempt else []
        return await super().GetBuild(request, context)


class Proxied:
    """A builder behind the proxy."""

    def __init__(self, builds: Attempts, channel: grpc.aio.Channel, proxy: Proxy) -> None:
        self.builds, self.proxy = builds, proxy
        self._stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
        self._worker: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)

    def call(self, token: str, name: str = BUILD, *, scheme: str = "Bearer") -> asyncio.Future[Any]:
        """Begin a call."""
        request = build_service_pb2.GetBuildRequest(name=name)
        shown = [("authorization", f"{scheme} {token}")]
        call = self._stub.GetBuild(request, metadata=shown, timeout=SECONDS)
        begun: asyncio.Future[Any] = asyncio.ensure_future(call)
        return begun

    async def ask(self, token: str) -> grpc.StatusCode:
        """Ask what a worker would; return what becomes of it, UNIMPLEMENTED if it gets through."""
        request = worker_service_pb2.LeaseBuildRequest()
        call = self._worker.LeaseBuild(request, metadata=bearer(token), timeout=SECONDS)
        code: grpc.StatusCode = await call.code()
        return code

    async def follow(self, token: str) -> list[str]:
        """Read a build's events to their end; return the cursors."""
        request = build_service_pb2.StreamBuildEventsRequest(build=BUILD)
        answers = self._stub.StreamBuildEvents(request, metadata=bearer(token), timeout=SECONDS)
        return [answer.cursor async for answer in answers if answer.cursor]


@asynccontextmanager
async def proxied(folder: Path, changes: Mapping[str, str]) -> AsyncIterator[Proxied]:
    settings = ServerSettings(
        listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2, calls_at_once=0
    )
    builds, server = Attempts(), Server(settings, Chain(Tokens(), Telemetry()))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, builds)
    proxy = await asyncio.to_thread(start_proxy, folder, await server.start(), changes)
    try:
        async with grpc.aio.insecure_channel(proxy.address) as channel:
            yield Proxied(builds, channel, proxy)
    finally:
        proxy.close()
        await server.stop()


def answer_of(error: grpc.aio.AioRpcError) -> tuple[dict[str, Any], str, str]:
    """Return the details of a refusal, its text, and what gRPC's own retries read."""
    trailers = dict(error.trailing_metadata() or ())
    details = status_pb2.Status.FromString(trailers[status.DETAILS_KEY])
    return MessageToDict(details), error.details() or "", trailers[status.PUSHBACK_KEY]


async def test_what_a_service_cannot_do_is_refused_before_it(tmp_path: Path) -> None:
    once = {
        FILL: f"max_tokens: {SHARE}, tokens_per_fill: 1, fill_interval: 3600s",
        PROCESS_FILL: "max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s",
    }
    async with proxied(tmp_path / "proxy", once) as behind:
        for known in ("reader", "writer"):
            await behind.call(known)
        held = {behind.call("reader", HELD) for _ in range(SHARE - 1 + BEYOND + 10)}
        refused = set[Any]()
        while len(refused) < 10:
            done, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        for call in refused:
            error: Any = call.exception()
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            expected = status_pb2.Status.FromString(status.encode(no_turn()))
            assert answer_of(error) == (MessageToDict(expected), no_turn().message, "1000")
        # Who stays within his share, and what lasts, are served meanwhile.
        assert (await behind.call("writer")).build.name == BUILD
        assert await behind.follow("reader") == ["0", "1", "2", "raw"]
        # So is what the suite's processes ask, whose share is their own, but no more than that.
        assert [await behind.ask("reader") for _ in range(3)] == [
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ]
        # A stock client comes again when it was told to.
        async with AsyncClient(behind.proxy.address, token="reader", timeout=SECONDS) as client:
            asked = asyncio.create_task(client.builds.get(BUILD))
            while await asyncio.to_thread(behind.proxy.counted, OVERFLOW) == len(refused) + 1:
                assert not asked.done()
            behind.builds.released.set()
            assert (await asked).name == BUILD
        assert len(behind.builds.attempts) == 1  # refused once or more often before
        assert {answer.build.name for answer in await asyncio.gather(*held)} == {HELD}


async def test_a_share_is_neither_multiplied_by_spelling_nor_by_inventing(tmp_path: Path) -> None:
    two = {FILL: "max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s"}
    async with proxied(tmp_path / "proxy", two) as behind:
        await behind.call("writer")  # is let in, and so no new credential any more
        for scheme in ("Bearer", "bearer", "BEARER", "BeareR"):
            assert (await behind.call("writer", scheme=scheme)).build.name == BUILD
        assert behind.proxy.counted(OVER_SHARE) == 3
        for invented in ("one", "two", "three"):  # the address has one left
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await behind.call(invented)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert behind.proxy.counted(OVER_SHARE) == 5
        for _ in range(2):  # beyond as long as it is new, then within its own
            assert (await behind.call("reader")).build.name == BUILD
        assert behind.proxy.counted(OVER_SHARE) == 6


async def test_a_credential_begins_so_many_calls_a_second_and_none_too_long(tmp_path: Path) -> None:
    few = {RATE: "max_tokens: 3, tokens_per_fill: 1, fill_interval: 3600s"}
    async with proxied(tmp_path / "proxy", few) as behind:
        for _ in range(3):
            await behind.call("reader")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await behind.call("reader")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = rate_exceeded(ServerSettings().calls_per_second, 1.0)
        expected = status_pb2.Status.FromString(status.encode(error))
        assert answer_of(refused.value) == (MessageToDict(expected), error.message, "1000")
        assert (await behind.call("writer")).build.name == BUILD
        with pytest.raises(grpc.aio.AioRpcError) as long:
            await behind.call("writer", "x" * MAX_REQUEST_BYTES)
        assert long.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        expected = status_pb2.Status.FromString(status.encode(too_long()))
        assert answer_of(long.value) == (MessageToDict(expected), too_long().message, "-1")


async def test_a_service_that_is_gone_is_away_and_not_too_busy(tmp_path: Path) -> None:
    proxy = await asyncio.to_thread(start_proxy, tmp_path / "proxy", free_port())
    try:
        async with grpc.aio.insecure_channel(proxy.address) as channel:
            behind = Proxied(Attempts(), channel, proxy)
            calls = [behind.call("reader") for _ in range(BEYOND)]
            ends: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            assert {error.code() for error in ends} == {grpc.StatusCode.UNAVAILABLE}
    finally:
        proxy.close()
