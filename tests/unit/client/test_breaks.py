"""Streams that a server refuses for a while are begun again, and for no longer than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from modelyard import AsyncClient, Client, ResourceExhaustedError
from modelyard._transport.breaks import ATTEMPTS, PATIENCE, Breaks
from modelyard.artifact.v1 import (
    artifact_service_pb2_grpc,
    storage_pb2,
    storage_service_pb2,
    storage_service_pb2_grpc,
)
from modelyard.builder.v1 import build_service_pb2_grpc
from modelyard.errors import (
    CancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    ModelyardError,
    UnavailableError,
)
from modelyard.metadata.v1 import run_service_pb2, run_service_pb2_grpc

from tests.unit.client.test_calls import fail
from tests.unit.client.test_distrust import DATA, Liar
from tests.unit.client.test_follow import COUNT, Builds

RUN = "projects/shop/models/churn/runs/r1"
BUSY = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
CODES = grpc.StatusCode


class Runs(run_service_pb2_grpc.RunServiceServicer):
    """Acknowledges whatever arrives."""

    acknowledged = 0

    def IngestRunData(
        self, requests: Iterator[run_service_pb2.IngestRunDataRequest], context: Any
    ) -> Iterator[run_service_pb2.IngestRunDataResponse]:
        for request in requests:
            self.acknowledged = request.end_sequence
            yield run_service_pb2.IngestRunDataResponse(acknowledged_sequence=self.acknowledged)

    def GetIngestPosition(
        self, request: run_service_pb2.GetIngestPositionRequest, context: Any
    ) -> run_service_pb2.GetIngestPositionResponse:
        return run_service_pb2.GetIngestPositionResponse(acknowledged_sequence=self.acknowledged)


class Verifier(storage_service_pb2_grpc.StorageServiceServicer):
    """Reads on as far as it is told to and then goes away; reads to the end when it is not."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def VerifyArtifact(
        self, request: storage_service_pb2.VerifyArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[storage_service_pb2.VerifyArtifactResponse]:
        end = self.ends.pop(0) if self.ends else 3
        for done in range(1, end + 1):
            yield storage_service_pb2.VerifyArtifactResponse(
                damaged_files=[storage_pb2.DamagedFile(path=str(done))],
                done_bytes=done,
                total_bytes=3,
            )
        if end < 3:
            context.abort(CODES.UNAVAILABLE, "gone")


class Busy(grpc.ServerInterceptor):
    """Refuses streams as it is told to, each entry once."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, grpc.StatusCode, bool]] = []

    def intercept_service(self, proceed: Callable[[Any], Any], details: Any) -> Any:
        handler = proceed(details)
        method = details.method.rpartition("/")[2]
        if not self.refusals or self.refusals[0][0] != method:
            return handler
        _, code, is_busy = self.refusals.pop(0)

        def refuse(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            fail(context, code, "not now", *([BUSY] if is_busy else []))
            yield

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(refuse, handler.request_deserializer, handler.response_serializer)


@pytest.fixture
def busy() -> Busy:
    return Busy()


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def address(busy: Busy, verifier: Verifier) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[busy])
    storage_service_pb2_grpc.add_StorageServiceServicer_to_server(verifier, server)
    build_service_pb2_grpc.add_BuildServiceServicer_to_server(Builds(), server)
    run_service_pb2_grpc.add_RunServiceServicer_to_server(Runs(), server)
    artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(Liar("a", DATA), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def refusals(method: str) -> list[tuple[str, grpc.StatusCode, bool]]:
    return [
        (method, CODES.RESOURCE_EXHAUSTED, True),
        (method, CODES.DEADLINE_EXCEEDED, False),
        (method, CODES.CANCELLED, False),
    ]


async def test_streams_that_are_refused_for_a_while_go_on(address: str, busy: Busy) -> None:
    with Client(address, token="t", project="shop") as client:
        busy.refusals = refusals("StreamBuildEvents")
        assert len(list(client.builds.follow("b1"))) == COUNT
        with client.runs.writer(RUN) as writer:
            busy.refusals = refusals("IngestRunData")
            writer.log({"loss": 1.0}, step=1)
        busy.refusals = [
            ("ReadRecipe", CODES.RESOURCE_EXHAUSTED, True),
            ("ReadFile", CODES.DEADLINE_EXCEEDED, False),
        ]
        name = f"projects/shop/artifacts/{Liar('a', DATA).digest}"
        assert client.artifacts.read(name, "a") == DATA
    async with (
        AsyncClient(address, token="t", project="shop") as twin,
        twin.runs.writer(RUN) as log,
    ):
        busy.refusals = refusals("IngestRunData")
        await log.log({"loss": 1.0}, step=2)
    assert busy.refusals == []


def test_a_verification_whose_server_goes_away_is_begun_again(
    address: str, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard._transport.breaks.LONGEST_PAUSE", 0.01)
    name = f"projects/shop/artifacts/{Liar('a', DATA).digest}"
    verifier.ends = [1, 2]
    seen: list[tuple[int, int]] = []
    with Client(address, token="t", project="shop") as client:
        damaged = client.storage.verify(name, progress=lambda *now: seen.append(now))
        assert [file.path for file in damaged] == ["1", "2", "3"]
        assert [done for done, _ in seen] == [1, 1, 2, 1, 2, 3]
        verifier.ends = [1] * ATTEMPTS
        with pytest.raises(UnavailableError):
            client.storage.verify(name)
        assert verifier.ends == []


def test_what_no_waiting_helps_is_told_at_once(address: str, busy: Busy) -> None:
    with Client(address, token="t", project="shop") as client:
        busy.refusals = [("StreamBuildEvents", CODES.RESOURCE_EXHAUSTED, False)]
        with pytest.raises(ResourceExhaustedError):
            list(client.builds.follow("b1"))
        busy.refusals = [("IngestRunData", CODES.RESOURCE_EXHAUSTED, False)]
        with client.runs.writer(RUN) as writer, pytest.raises(ResourceExhaustedError):
            writer.log({"loss": 1.0}, step=1)
    assert busy.refusals == []


@pytest.mark.parametrize(
    "error",
    [UnavailableError("a"), CancelledError("a"), DeadlineExceededError("a")],
    ids=lambda error: error.code,
)
def test_breaks_end_when_nothing_gets_on(error: ModelyardError) -> None:
    breaks = Breaks()
    for _ in range(3 * ATTEMPTS):
        breaks.after(error, advanced=True)
    for _ in range(ATTEMPTS - 2):
        breaks.after(error, advanced=False)
    with pytest.raises(type(error)):
        breaks.after(error, advanced=False)


def test_a_break_lasts_as_long_as_the_server_says_unless_that_is_too_long() -> None:
    def busy_for(seconds: float | None) -> ModelyardError:
        return ResourceExhaustedError("too much", retry_delay=seconds)

    assert Breaks().after(busy_for(7.5), advanced=False).seconds == 7.5
    for seconds in (None, PATIENCE + 1):
        with pytest.raises(ResourceExhaustedError):
            Breaks().after(busy_for(seconds), advanced=False)


def test_bytes_that_went_missing_are_sent_again_and_not_read_again() -> None:
    missing = FailedPreconditionError("gone", reason="BYTES_MISSING")
    Breaks(sending=True).after(missing, advanced=False)
    with pytest.raises(FailedPreconditionError):
        Breaks().after(missing, advanced=False)
