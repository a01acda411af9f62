"""The shipped proxy with TLS: users show no certificate, processes theirs, nobody another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from modelyard.builder.v1 import build_service_pb2_grpc, worker_service_pb2_grpc
from modelyard.metadata.v1 import project_service_pb2, project_service_pb2_grpc

from services.common.rpc.callers import TRUST_DOMAIN, Callers
from services.common.rpc.revocation import Revocations
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
from tests.servers.proxy import SERVICES, Proxy, start_proxy

SHIPPED = Path(__file__).resolve().parents[3] / "deploy"
FOLDER = "/etc/modelyard"
SECONDS = 30.0
PROCESS_FILL = "max_tokens: 1000, tokens_per_fill: 500, fill_interval: 1s"
OWN_SHARE = 3


def changes(folder: Path) -> dict[str, str]:
    """Put this test's addresses and files in the place of the shipped ones."""
    shipped = ("address: 0.0.0.0,", *(f"address: {service}," for service in SERVICES))
    return dict.fromkeys(shipped, "address: 127.0.0.1,") | {
        FOLDER: str(folder),
        PROCESS_FILL: f"max_tokens: {OWN_SHARE}, tokens_per_fill: 1, fill_interval: 3600s",
    }


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
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    """The proxy before a builder."""
    put_secrets(tmp_path)
    lists = tmp_path / "tls" / "revoked.pem"
    revocations = Revocations(str(lists), str(tmp_path / "tls" / "authority.pem"))
    own = AUTHORITY.issue(f"{TRUST_DOMAIN}builder")
    server = make_server(tmp_path, own, callers=Callers(revocations))
    proxy = await asyncio.to_thread(
        start_proxy,
        tmp_path,
        await server.start(),
        changes(tmp_path),
        shipped_file=SHIPPED / "envoy-tls.yaml",
        credentials=grpc.ssl_channel_credentials(AUTHORITY.pem),
    )
    try:
        async with asyncio.timeout(SECONDS):
            while await through(proxy, None) != ("OK", DENIED):
                assert proxy.process.poll() is None, (tmp_path / "envoy.log").read_text()
        yield proxy
    finally:
        proxy.close()
        await server.stop()


async def through(proxy: Proxy, shown: tuple[bytes, bytes] | None, **more: str) -> tuple[str, str]:
    """Say how an RPC for all and one for workers answer through the proxy."""
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem, *(shown or ()))
    async with grpc.aio.secure_channel(proxy.address, credentials) as channel:
        builds, workers = (
            build_service_pb2_grpc.BuildServiceStub,
            worker_service_pb2_grpc.WorkerServiceStub,
        )
        return (
            await code(channel, builds, "GetBuild", BUILD, **more),
            await code(channel, workers, "LeaseBuild", LEASE, **more),
        )


async def test_the_proxy_and_what_is_behind_it_know_revoked_certificates(
    proxy: Proxy, tmp_path: Path
) -> None:
    lost = AUTHORITY.issue(f"{TRUST_DOMAIN}worker")
    workers, credentials = (
        worker_service_pb2_grpc.WorkerServiceStub,
        grpc.ssl_channel_credentials(AUTHORITY.pem, *lost),
    )
    async with grpc.aio.secure_channel(proxy.address, credentials) as opened:
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


async def test_the_proxy_tells_whom_it_saw(proxy: Proxy) -> None:
    worker = AUTHORITY.issue(f"{TRUST_DOMAIN}worker")
    assert await through(proxy, None) == ("OK", DENIED)
    assert await through(proxy, None, x_forwarded_client_cert=FORWARDED) == ("OK", DENIED)
    assert await through(proxy, worker) == ("OK", "OK")
    builder = AUTHORITY.issue(f"{TRUST_DOMAIN}builder")
    assert await through(proxy, builder, x_forwarded_client_cert=FORWARDED) == ("OK", DENIED)
    assert await through(proxy, STRANGERS.issue(f"{TRUST_DOMAIN}worker")) == (AWAY, AWAY)
    async with grpc.aio.insecure_channel(proxy.address) as channel:
        stub = build_service_pb2_grpc.BuildServiceStub
        assert await code(channel, stub, "GetBuild", BUILD) == AWAY
    # What answers where metadata should is a builder: the proxy does not talk to it.
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    async with grpc.aio.secure_channel(proxy.address, credentials) as channel:
        who = project_service_pb2.IntrospectCredentialRequest()
        projects = project_service_pb2_grpc.ProjectServiceStub
        assert await code(channel, projects, "IntrospectCredential", who) == AWAY


async def test_only_who_shows_a_certificate_of_the_suite_has_its_places(proxy: Proxy) -> None:
    async def places(name: str, **more: str) -> tuple[int, int]:
        """Let somebody call; return how many of his two calls took a process's place, or not."""
        before = _taken(proxy)
        await through(proxy, AUTHORITY.issue(name) if name else None, **more)
        own, others = (now - then for now, then in zip(_taken(proxy), before, strict=True))
        return own, others

    assert await places("") == (0, 2)
    assert await places("", x_forwarded_client_cert=FORWARDED) == (0, 2)
    assert await places("spiffe://elsewhere/worker") == (0, 2)
    # Which certificate it may be is for the service to say; which share it is, too, is counted.
    for name in ("worker", "builder", "worker"):
        assert await places(TRUST_DOMAIN + name) == (1, 1)
    assert await places(f"{TRUST_DOMAIN}worker") == (0, 2)


def _taken(proxy: Proxy) -> tuple[int, int]:
    """Return how many calls took the builder's places: those of processes, and all others."""
    own, others = (
        proxy.counted(rf"cluster\.{name}\.upstream_rq_total")
        for name in ("builder-lasting", "builder")
    )
    return own, others
