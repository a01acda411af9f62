from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from modelyard import Client, ModelyardError

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
