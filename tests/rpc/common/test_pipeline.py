"""The chassis on a real channel: rights, errors, malformed bytes, deadlines, drain."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelyard.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from modelyard.builder.v1 import build_service_pb2, build_service_pb2_grpc
from modelyard.metadata.v1 import run_service_pb2, run_service_pb2_grpc

from services.common.auth import (
    CachingAuthenticator,
    Identity,
    Right,
    current_call,
    invalid_credential,
)
from services.common.errors import Reason, ServiceError
from services.common.rpc import status
from services.common.rpc.interceptors import Chain
from services.common.rpc.pipeline import steady
from services.common.rpc.server import Server, ServerSettings
from services.common.settings import SettingsError
from services.common.telemetry import Telemetry

READER = Identity("user:reader", "reader", {"p": frozenset({Right.READ})})
WRITER = Identity("user:writer", "writer", {"p": frozenset({Right.READ, Right.WRITE})})
BUILD = "projects/p/builds/b"
RUN = "projects/p/models/m/runs/r"


class Tokens:
    def __init__(self) -> None:
        self.refuse: ServiceError | None = None

    async def introspect(self, credential: str) -> Identity:
        for identity in (READER, WRITER):
            if identity.credential == credential and self.refuse is None:
                return identity
        raise self.refuse or invalid_credential()


class Builds(build_service_pb2_grpc.BuildServiceServicer):
    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def GetBuild(self, request: Any, context: Any) -> Any:
        if request.name.endswith("missing"):
            raise ServiceError(Reason.RESOURCE_NOT_FOUND, "it is not there", resource=request.name)
        if request.name.endswith("bug"):
            raise RuntimeError("secret=/etc/x")
        if request.name.endswith("slow"):
            await asyncio.sleep(30)
        if request.name.endswith("held"):
            await self.released.wait()
        response = build_service_pb2.GetBuildResponse()
        response.build.name, response.build.creator = request.name, current_call().caller.principal
        return response

    async def StreamBuildEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while request.build.endswith("endless"):
            yield build_service_pb2.StreamBuildEventsResponse()
            await asyncio.sleep(0.01)
        for number in range(3):
            yield build_service_pb2.StreamBuildEventsResponse(cursor=str(number))
        if request.build.endswith("missing"):
            raise ServiceError(Reason.RESOURCE_NOT_FOUND, "gone", resource=request.build)
        yield b"\x12\x03raw"


class Runs(run_service_pb2_grpc.RunServiceServicer):
    async def IngestRunData(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield run_service_pb2.IngestRunDataResponse(acknowledged_sequence=request.end_sequence)


class Uploads(artifact_service_pb2_grpc.ArtifactServiceServicer):
    @steady
    async def WriteChunks(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield artifact_service_pb2.WriteChunksResponse()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
async def server(tokens: Tokens) -> AsyncIterator[tuple[Server, int]]:
    settings = ServerSettings(listen="127.0.0.1:0", lame_duck_seconds=0.05, grace_seconds=0.2)
    server = Server(settings, Chain(tokens, Telemetry(), recheck_seconds=0.02))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    server.add(run_service_pb2_grpc.add_RunServiceServicer_to_server, Runs())
    yield server, await server.start()
    await server.stop()


@pytest.fixture
async def channel(server: tuple[Server, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        yield channel


def bearer(credential: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {credential}")]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    wire = dict(error.trailing_metadata() or ())[status.DETAILS_KEY]
    details = status_pb2.Status.FromString(wire).details
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in details].count(True) == 1
    assert info.domain == "modelyard.dev"
    return str(info.reason)


async def refused(channel: grpc.aio.Channel, name: str, **call: Any) -> grpc.aio.AioRpcError:
    stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetBuild(build_service_pb2.GetBuildRequest(name=name), **call)
    return caught.value


async def test_a_good_call_knows_its_caller(channel: grpc.aio.Channel) -> None:
    stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
    request = build_service_pb2.GetBuildRequest(name=BUILD)
    response = await stub.GetBuild(request, metadata=bearer("reader"))
    assert response.build.name == BUILD
    assert response.build.creator == "user:reader"


@pytest.mark.parametrize("metadata", [[], bearer("forged"), [("authorization", "Basic reader")]])
async def test_no_valid_credential(channel: grpc.aio.Channel, metadata: Any) -> None:
    error = await refused(channel, BUILD, metadata=metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "INVALID_CREDENTIAL"


async def test_rights_are_the_same_refusal_for_every_resource(channel: grpc.aio.Channel) -> None:
    there = await refused(channel, "projects/q/builds/b", metadata=bearer("reader"))
    missing = await refused(channel, "projects/q/builds/missing", metadata=bearer("reader"))
    assert there.code() is missing.code() is grpc.StatusCode.PERMISSION_DENIED
    assert there.details() == missing.details()


async def test_bad_names_are_invalid_arguments(channel: grpc.aio.Channel) -> None:
    error = await refused(channel, "../etc/passwd", metadata=bearer("reader"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "INVALID_NAME"


async def test_documented_errors_keep_their_reason(channel: grpc.aio.Channel) -> None:
    error = await refused(channel, "projects/p/builds/missing", metadata=bearer("reader"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) == "RESOURCE_NOT_FOUND"


async def test_bugs_say_nothing(channel: grpc.aio.Channel) -> None:
    error = await refused(channel, "projects/p/builds/bug", metadata=bearer("reader"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error"
    assert b"secret" not in dict(error.trailing_metadata() or ())[status.DETAILS_KEY]


async def test_malformed_bytes_are_invalid_arguments(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary("/modelyard.builder.v1.BuildService/GetBuild")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", metadata=bearer("reader"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "MALFORMED_REQUEST"


async def test_a_call_whose_request_never_comes_is_not_carried_out(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    begin: Any = channel.stream_unary("/modelyard.builder.v1.BuildService/GetBuild")
    ended = begin(metadata=bearer("reader"), timeout=60)
    await ended.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "MALFORMED_REQUEST"
    # One who gives up has sent nothing malformed.
    caplog.set_level(logging.INFO, "services.common.rpc.interceptors")
    given_up = [begin(metadata=bearer("reader"), timeout=60) for _ in range(50)]
    for call in given_up:
        await call.wait_for_connection()
    stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
    request = build_service_pb2.GetBuildRequest(name=BUILD)
    # Once that is answered the server awaits the requests of those before it.
    await stub.GetBuild(request, metadata=bearer("reader"))
    caplog.clear()
    for call in given_up:
        call.cancel()
    codes: Counter[str] = Counter()
    while codes.total() - codes["OK"] < len(given_up):
        await stub.GetBuild(request, metadata=bearer("reader"))
        codes = Counter(record.__dict__["code"] for record in caplog.records)
    assert set(codes) == {"OK", "CANCELLED"}


async def test_deadlines_end_the_work(channel: grpc.aio.Channel) -> None:
    started = asyncio.get_running_loop().time()
    error = await refused(channel, "projects/p/builds/slow", metadata=bearer("reader"), timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert asyncio.get_running_loop().time() - started < 5


async def test_server_streams_and_stored_bytes(channel: grpc.aio.Channel) -> None:
    stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
    request = build_service_pb2.StreamBuildEventsRequest(build=BUILD)
    cursors = [m.cursor async for m in stub.StreamBuildEvents(request, metadata=bearer("reader"))]
    assert cursors == ["0", "1", "2", "raw"]


async def test_a_stream_that_fails_midway_says_why(channel: grpc.aio.Channel) -> None:
    stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
    request = build_service_pb2.StreamBuildEventsRequest(build="projects/p/builds/missing")
    seen = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in stub.StreamBuildEvents(request, metadata=bearer("reader")):
            seen.append(message)  # noqa: PERF401 - what came before the error counts
    assert len(seen) == 3
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_client_streams_are_authorised_by_their_first_message(
    channel: grpc.aio.Channel,
) -> None:
    stub: Any = run_service_pb2_grpc.RunServiceStub(channel)

    async def batches(*ends: int) -> AsyncIterator[Any]:
        for end in ends:
            yield run_service_pb2.IngestRunDataRequest(
                run="projects/p/models/m/runs/r", end_sequence=end
            )

    call = stub.IngestRunData(batches(1, 2, 3), metadata=bearer("writer"))
    assert [answer.acknowledged_sequence async for answer in call] == [1, 2, 3]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [answer async for answer in stub.IngestRunData(batches(1), metadata=bearer("reader"))]
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_public_address_needs_tls() -> None:
    server = Server(ServerSettings(listen="0.0.0.0:0"), Chain(Tokens(), Telemetry()))
    with pytest.raises(SettingsError, match="TLS"):
        await server.start()


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_stream_ends_with_its_credential(
    channel: grpc.aio.Channel, tokens: Tokens, direction: str
) -> None:
    if direction == "out":
        builds: Any = build_service_pb2_grpc.BuildServiceStub(channel)
        request = build_service_pb2.StreamBuildEventsRequest(build="projects/p/builds/endless")
        call = builds.StreamBuildEvents(request, metadata=bearer("reader"), timeout=20)
    else:
        runs: Any = run_service_pb2_grpc.RunServiceStub(channel)
        call = runs.IngestRunData(endless(), metadata=bearer("writer"), timeout=20)
    answers = aiter(call)
    await anext(answers)
    away = "a service of the suite does not answer"
    tokens.refuse = ServiceError(Reason.SERVICE_UNAVAILABLE, away)
    for _ in range(20):  # while nobody can tell, it goes on
        await anext(answers)
    tokens.refuse = invalid_credential()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while True:
            await anext(answers)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(caught.value) == "INVALID_CREDENTIAL"


async def endless() -> AsyncIterator[run_service_pb2.IngestRunDataRequest]:
    for number in itertools.count(1):
        yield run_service_pb2.IngestRunDataRequest(run=RUN, end_sequence=number)
        await asyncio.sleep(0.01)


async def rested_after(count: int) -> AsyncIterator[artifact_service_pb2.WriteChunksRequest]:
    for _ in range(count):
        yield artifact_service_pb2.WriteChunksRequest(parent="projects/p")
    await asyncio.Event().wait()


async def test_an_upload_that_rests_is_sent_away_and_what_may_rest_is_not() -> None:
    settings = ServerSettings(
        listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2, message_seconds=0.05
    )
    server = Server(settings, Chain(Tokens(), Telemetry()))
    server.add(artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server, Uploads())
    server.add(run_service_pb2_grpc.add_RunServiceServicer_to_server, Runs())
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        uploads: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        runs: Any = run_service_pb2_grpc.RunServiceStub(channel)
        resting = runs.IngestRunData(metadata=bearer("writer"))
        await resting.write(run_service_pb2.IngestRunDataRequest(run=RUN, end_sequence=1))
        for messages in range(3):
            upload = uploads.WriteChunks(rested_after(messages), metadata=bearer("writer"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in upload:
                    pass
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert reason_of(caught.value) == "DEADLINE_EXCEEDED"
        await resting.write(run_service_pb2.IngestRunDataRequest(run=RUN, end_sequence=2))
        assert [(await resting.read()).acknowledged_sequence for _ in range(2)] == [1, 2]
    await server.stop()


async def test_a_call_that_does_not_come_whole_takes_no_turn() -> None:
    settings = ServerSettings(
        listen="127.0.0.1:0",
        lame_duck_seconds=0,
        grace_seconds=0.2,
        calls_at_once=1,
        awaited_requests_of_a_principal=3,
    )
    server = Server(settings, Chain(Tokens(), Telemetry()))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        begin: Any = channel.stream_unary("/modelyard.builder.v1.BuildService/GetBuild")
        begun = [begin(metadata=bearer("reader"), timeout=60) for _ in range(3)]
        for call in begun:
            await call.wait_for_connection()
        # A stranger is refused before his request is there.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begin(metadata=bearer("nobody"), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # One principal may leave so many waiting and no more; others call as ever.
        error = await refused(channel, BUILD, metadata=bearer("reader"))
        assert (error.code(), reason_of(error)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "LIMIT_EXCEEDED",
        )
        stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
        request = build_service_pb2.GetBuildRequest(name=BUILD)
        assert (await stub.GetBuild(request, metadata=bearer("writer"))).build.name == BUILD
        for call in begun:
            await call.write(request.SerializeToString())
            await call.done_writing()
        answers = [build_service_pb2.GetBuildResponse.FromString(await call) for call in begun]
        assert {answer.build.name for answer in answers} == {BUILD}
        assert await stub.GetBuild(request, metadata=bearer("reader"))
    await server.stop()


async def test_other_servers_of_the_process_close_with_this_one() -> None:
    settings = ServerSettings(listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=60)
    server = Server(settings, Chain(Tokens(), Telemetry()))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    port = await server.start()
    closing, closed = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await asyncio.sleep(0)  # it takes its own time
            closed.set()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        begin: Any = channel.stream_unary("/modelyard.builder.v1.BuildService/GetBuild")
        call = begin(metadata=bearer("reader"), timeout=60)
        await call.wait_for_connection()
        beside = asyncio.create_task(other())
        stop = asyncio.create_task(server.stop([beside]))
        await closing.wait()  # while a call still has its grace
        assert not stop.done()
        call.cancel()
        await stop
        assert closed.is_set()


async def test_what_is_over_a_limit_is_refused_at_once_and_told_when_to_come_again() -> None:
    settings = ServerSettings(
        listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2, calls_per_second=0.5, burst=2
    )
    server = Server(settings, Chain(Tokens(), Telemetry()))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)
        request = build_service_pb2.GetBuildRequest(name=BUILD)
        for _ in range(2):
            await stub.GetBuild(request, metadata=bearer("reader"))
        error = await refused(channel, BUILD, metadata=bearer("reader"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "LIMIT_EXCEEDED"
        wire = dict(error.trailing_metadata() or ())[status.DETAILS_KEY]
        retry = error_details_pb2.RetryInfo()
        assert any(d.Unpack(retry) for d in status_pb2.Status.FromString(wire).details)
        assert 0 < retry.retry_delay.ToMilliseconds() <= 2_000
        await stub.GetBuild(request, metadata=bearer("writer"))
    await server.stop()


async def test_a_service_at_its_limit_refuses_shares_and_recovers() -> None:
    settings = ServerSettings(
        listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2, calls_at_once=2
    )
    builds, authenticator = Builds(), CachingAuthenticator(Tokens())
    chain = Chain(authenticator, Telemetry(), known=authenticator.known)
    server = Server(replace(settings, calls_waiting=12), chain)
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, builds)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = build_service_pb2_grpc.BuildServiceStub(channel)

        def call(token: str, *, name: str = "projects/p/builds/held") -> Any:
            request = build_service_pb2.GetBuildRequest(name=name)
            return asyncio.ensure_future(stub.GetBuild(request, metadata=bearer(token), timeout=60))

        much, refused = {call("reader") for _ in range(40)}, set[Any]()
        # Two are worked on, nine wait: three times as many as there is room left.
        while len(refused) < 40 - 11:
            done, much = await asyncio.wait(much, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        for each in refused:
            error = each.exception()
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(error) == "LIMIT_EXCEEDED"
            wire = dict(error.trailing_metadata())[status.DETAILS_KEY]
            retry = error_details_pb2.RetryInfo()
            assert any(d.Unpack(retry) for d in status_pb2.Status.FromString(wire).details)
        little = call("writer", name=BUILD)
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        builds.released.set()
        assert (await little).build.name == BUILD
        assert len(await asyncio.gather(*much)) == 11
        assert (await call("reader")).build.name
    await server.stop()
