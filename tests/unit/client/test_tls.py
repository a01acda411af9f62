from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from modelyard import Client, ModelyardError
from modelyard._channel import Line, open_channel
from modelyard._config import find_settings
from modelyard.metadata.v1 import model_service_pb2_grpc

from tests.certificates import make_certificate


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[str, bytes]]:
    key, certificate = make_certificate()
    server = grpc.server(ThreadPoolExecutor(2))
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
    monkeypatch.setattr("modelyard._file_changes.LOOK_SECONDS", 0)
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
    for one in (channel, other):
        one.close()
