from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

import grpc
import pytest
from modelyard import AsyncClient, Client, ModelyardError
from modelyard._transport.channel import Line, open_channel
from modelyard._transport.config import find_settings
from modelyard._transport.connection import AsyncConnection, Connection
from modelyard.builder.v1 import build_service_pb2, build_service_pb2_grpc
from modelyard.errors import CancelledError
from modelyard.metadata.v1 import model_service_pb2, model_service_pb2_grpc

from tests.certificates import make_certificate

EVENTS = build_service_pb2.StreamBuildEventsRequest(build="projects/shop/builds/b1")
READ = build_service_pb2.StreamBuildEventsResponse.FromString


class Endless(build_service_pb2_grpc.BuildServiceServicer):
    """Streams events, each numbered."""

    def StreamBuildEvents(
        self, request: build_service_pb2.StreamBuildEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[build_service_pb2.StreamBuildEventsResponse]:
        for number in count():
            if not context.is_active():
                return
            yield build_service_pb2.StreamBuildEventsResponse(cursor=str(number))


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[str, bytes]]:
    key, certificate = make_certificate()
    server = grpc.server(ThreadPoolExecutor(4))
    build_service_pb2_grpc.add_BuildServiceServicer_to_server(Endless(), server)
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["", "https://", "grpcs://"])
def test_a_known_authority_is_trusted(scheme: str, tls: tuple[str, bytes]) -> None:
    address, certificate = tls
    with Client(scheme + address, token="t", root_certificates=certificate) as client:
        with pytest.raises(ModelyardError) as caught:
            client.models.get("churn")
        assert caught.value.code == "UNIMPLEMENTED"  # the server was reached


@pytest.mark.parametrize("own", [True, False])
def test_an_unknown_authority_is_not(own: bool, tls: tuple[str, bytes]) -> None:
    address, _ = tls
    other = make_certificate()[1] if own else None
    with Client(f"https://{address}", token="t", root_certificates=other, timeout=1) as client:
        with pytest.raises(ModelyardError) as caught:
            client.models.get("churn")
        assert caught.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_a_line_is_opened_anew_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0)
    file = tmp_path / "authority.pem"
    file.write_bytes(make_certificate()[1])
    settings = find_settings("suite.example", token="t", root_certificates=file, environ={})
    line = Line(settings, open_channel)
    make = model_service_pb2_grpc.ModelServiceStub
    channel, stub = line.channel, line.stub(make)
    assert (line.channel, line.stub(make)) == (channel, stub)
    file.write_bytes("# Größte Sicherheit\n".encode() + make_certificate()[1])
    other, stub = line.channel, line.stub(make)
    assert other is not channel
    for damage in (b"", b"nothing", make_certificate()[1][:200]):
        file.write_bytes(damage)
        assert (line.channel, line.stub(make)) == (other, stub)
    file.unlink()
    assert (line.channel, line.stub(make)) == (other, stub)
    assert len(caplog.records) == 4
    file.write_bytes(make_certificate()[1])
    line.close()
    assert line.channel is other
    get = model_service_pb2.GetModelRequest()
    for one in (channel, other):
        with pytest.raises(ValueError, match="closed"):
            make(one).GetModel(get)


def test_no_stub_is_of_an_earlier_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0)
    file = tmp_path / "authority.pem"
    file.write_bytes(make_certificate()[1])
    settings = find_settings("suite.example", token="t", root_certificates=file, environ={})
    line = Line(settings, open_channel)
    renewals: list[Future[grpc.Channel]] = []

    def make(channel: grpc.Channel) -> grpc.Channel:
        if not renewals:  # the first one is overtaken by a renewal, if that is possible
            file.write_bytes(make_certificate()[1])
            renewals.append(thread.submit(lambda: line.channel))
            wait(renewals, timeout=0.1)
        return channel

    with ThreadPoolExecutor(1) as thread:
        line.stub(make)
        renewed = renewals[0].result()
        assert line.stub(make) is line.channel is renewed
    line.close()


def test_what_is_under_way_goes_on_until_the_client_is_closed(
    tls: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0)
    address, certificate = tls
    file = tmp_path / "authority.pem"
    file.write_bytes(certificate)
    settings = find_settings(f"https://{address}", token="t", root_certificates=file, environ={})
    connection = Connection(settings, timeout=30)
    stream = connection._stream(EVENTS, READ, 30)
    assert next(stream).cursor == "0"
    earlier = connection.channel
    file.write_bytes(certificate + make_certificate()[1])
    assert connection.channel is not earlier
    del earlier
    gc.collect()
    assert next(stream).cursor == "1"
    connection.close()
    with pytest.raises(CancelledError):
        list(stream)


async def test_so_it_is_in_asyncio(
    tls: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0)
    address, certificate = tls
    file = tmp_path / "authority.pem"
    file.write_bytes(certificate)
    settings = find_settings(f"https://{address}", token="t", root_certificates=file, environ={})
    connection = AsyncConnection(settings, timeout=30)
    stream = connection._stream(EVENTS, READ, 30)
    assert (await anext(stream)).cursor == "0"
    earlier = connection.channel
    file.write_bytes(certificate + make_certificate()[1])
    assert connection.channel is not earlier
    del earlier
    gc.collect()
    assert (await anext(stream)).cursor == "1"
    await connection.close()
    with pytest.raises(asyncio.CancelledError):
        async for _ in stream:
            pass


async def test_a_client_of_asyncio_trusts_whom_its_file_names_by_now(
    tls: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0)
    address, certificate = tls
    file = tmp_path / "authority.pem"
    file.write_bytes(make_certificate()[1])
    async with AsyncClient(f"https://{address}", token="t", root_certificates=file) as client:
        with pytest.raises(ModelyardError) as refused:
            await client.with_options(timeout=0.2).models.get("churn")
        assert refused.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        file.write_bytes(certificate)
        with pytest.raises(ModelyardError) as reached:
            await client.with_options(timeout=30).models.get("churn")
        assert reached.value.code == "UNIMPLEMENTED"
