"""The shipped proxy with TLS: users show no certificate, processes theirs, nobody another's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from modelyard.builder.v1 import build_service_pb2_grpc, worker_service_pb2_grpc
from modelyard.metadata.v1 import project_service_pb2, project_service_pb2_grpc

from services.common.rpc.callers import TRUST_DOMAIN, Callers
from services.common.rpc.revocation import Revocations
from services.suite.start import free_port
from tests.rpc.common.test_mutual_tls import (
    AUTHORITY,
    AWAY,
    BUILD,
    DENIED,
    FORWARDED,
    LEASE,
    STRANGERS,
    code,
    make_server,
)
from tests.rpc.common.test_revocation import BITES_SECONDS, put

SHIPPED = Path(__file__).resolve().parents[3] / "deploy"
FOLDER = "/etc/modelyard"
SECONDS = 30.0


def configuration(folder: Path, port: int, upstream: int) -> str:
    """Put this test's ports and files in the place of the shipped ones; all services are one."""
    text = (SHIPPED / "envoy-tls.yaml").read_text()
    for shipped, own in (
        ("address: 0.0.0.0, port_value: 7070 ", f"address: 127.0.0.1, port_value: {port} "),
        (FOLDER, str(folder)),
    ):
        assert shipped in text
        text = text.replace(shipped, own)
    for number, service in enumerate(("metadata", "artifact", "builder", "deployer")):
        endpoint = f"address: {service}, port_value: {7071 + number} "
        assert endpoint in text
        text = text.replace(endpoint, f"address: 127.0.0.1, port_value: {upstream} ")
    return text


def put_secrets(folder: Path) -> None:
    """Put the proxy's files where it looks for them."""
    (folder / "tls").mkdir()
    for name in ("envoy-tls-certificate.yaml", "envoy-tls-authority.yaml"):
        text = (SHIPPED / name).read_text()
        (folder / name).write_text(text.replace(FOLDER, str(folder)))
    key, certificate = AUTHORITY.issue(f"{TRUST_DOMAIN}proxy")
    put(folder / "tls" / "proxy.key", key)
    put(folder / "tls" / "proxy.pem", certificate)
    put(folder / "tls" / "authority.pem", AUTHORITY.pem)
    put(folder / "tls" / "revoked.pem", AUTHORITY.revoke())


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[str]:
    """The proxy before a builder."""
    own, port, file = (
        AUTHORITY.issue(f"{TRUST_DOMAIN}builder"),
        free_port(),
        tmp_path / "envoy.yaml",
    )
    put_secrets(tmp_path)
    lists = tmp_path / "tls" / "revoked.pem"
    revocations = Revocations(str(lists), str(tmp_path / "tls" / "authority.pem"))
    server = make_server(tmp_path, own, callers=Callers(revocations))
    file.write_text(configuration(tmp_path, port, await server.start()))
    envoy = str(Path(sys.executable).with_name("envoy"))
    log = (tmp_path / "envoy.log").open("wb")
    child = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [envoy, "-c", str(file), "--log-level", "warn", "--disable-hot-restart"],
        stdout=log,
        stderr=log,
    )
    try:
        address = f"127.0.0.1:{port}"
        async with asyncio.timeout(SECONDS):
            while await through(address, None) != ("OK", DENIED):
                assert child.poll() is None, (tmp_path / "envoy.log").read_text()
        yield address
    finally:
        child.terminate()
        child.wait()
        log.close()
        await server.stop()


async def through(address: str, shown: tuple[bytes, bytes] | None, **more: str) -> tuple[str, str]:
    """Say how an RPC for all and one for workers answer through the proxy."""
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem, *(shown or ()))
    async with grpc.aio.secure_channel(address, credentials) as channel:
        builds, workers = (
            build_service_pb2_grpc.BuildServiceStub,
            worker_service_pb2_grpc.WorkerServiceStub,
        )
        return (
            await code(channel, builds, "GetBuild", BUILD, **more),
            await code(channel, workers, "LeaseBuild", LEASE, **more),
        )


async def test_the_proxy_and_what_is_behind_it_know_revoked_certificates(
    proxy: str, tmp_path: Path
) -> None:
    lost = AUTHORITY.issue(f"{TRUST_DOMAIN}worker")
    workers, credentials = (
        worker_service_pb2_grpc.WorkerServiceStub,
        grpc.ssl_channel_credentials(AUTHORITY.pem, *lost),
    )
    async with grpc.aio.secure_channel(proxy, credentials) as opened:
        assert await code(opened, workers, "LeaseBuild", LEASE) == "OK"
        put(tmp_path / "tls" / "revoked.pem", AUTHORITY.revoke(lost[1]))
        async with asyncio.timeout(BITES_SECONDS):
            # The connection to the proxy was made before; who is behind it does not take that.
            while await code(opened, workers, "LeaseBuild", LEASE) == "OK":
                pass
            while await through(proxy, lost) != (AWAY, AWAY):
                pass
        assert await code(opened, workers, "LeaseBuild", LEASE) == DENIED
    assert await through(proxy, AUTHORITY.issue(f"{TRUST_DOMAIN}worker")) == ("OK", "OK")
    assert await through(proxy, None) == ("OK", DENIED)


async def test_the_proxy_tells_whom_it_saw(proxy: str) -> None:
    worker = AUTHORITY.issue(f"{TRUST_DOMAIN}worker")
    assert await through(proxy, None) == ("OK", DENIED)
    assert await through(proxy, None, x_forwarded_client_cert=FORWARDED) == ("OK", DENIED)
    assert await through(proxy, worker) == ("OK", "OK")
    builder = AUTHORITY.issue(f"{TRUST_DOMAIN}builder")
    assert await through(proxy, builder, x_forwarded_client_cert=FORWARDED) == ("OK", DENIED)
    assert await through(proxy, STRANGERS.issue(f"{TRUST_DOMAIN}worker")) == (AWAY, AWAY)
    async with grpc.aio.insecure_channel(proxy) as channel:
        stub = build_service_pb2_grpc.BuildServiceStub
        assert await code(channel, stub, "GetBuild", BUILD) == AWAY
    # What answers where metadata should is a builder: the proxy does not talk to it.
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    async with grpc.aio.secure_channel(proxy, credentials) as channel:
        who = project_service_pb2.IntrospectCredentialRequest()
        projects = project_service_pb2_grpc.ProjectServiceStub
        assert await code(channel, projects, "IntrospectCredential", who) == AWAY
