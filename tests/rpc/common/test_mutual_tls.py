"""Who connects shows a certificate of the suite, and which RPCs it opens."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard.builder.v1 import (
    build_service_pb2,
    build_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

from services.common.auth import Identity, Right, invalid_credential
from services.common.errors import ServiceError
from services.common.rpc.callers import TRUST_DOMAIN, Callers
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer
from services.common.rpc.server import Server, ServerSettings
from services.common.settings import SettingsError
from services.common.telemetry import Telemetry
from tests.certificates import CLIENT, HOUR, SERVER, Authority

AUTHORITY, STRANGERS = Authority(), Authority()
RIGHTS = {"p": frozenset({Right.READ})}
ALLOWED = Identity("service:worker", "token", RIGHTS, frozenset({Right.WORK}))
BUILD = build_service_pb2.GetBuildRequest(name="projects/p/builds/b")
LEASE = worker_service_pb2.LeaseBuildRequest()
FORWARDED = f"By={TRUST_DOMAIN}builder;URI={TRUST_DOMAIN}worker"


class Tokens:
    async def introspect(self, credential: str) -> Identity:
        if credential != ALLOWED.credential:
            raise invalid_credential()
        return ALLOWED


class Builds(build_service_pb2_grpc.BuildServiceServicer):
    async def GetBuild(self, request: Any, context: Any) -> Any:
        return build_service_pb2.GetBuildResponse()

    async def StreamBuildEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield build_service_pb2.StreamBuildEventsResponse()
            await asyncio.sleep(0.01)  # it never has anything to say, and says so


class Workers(worker_service_pb2_grpc.WorkerServiceServicer):
    async def LeaseBuild(self, request: Any, context: Any) -> Any:
        return worker_service_pb2.LeaseBuildResponse()


def write(folder: Path, pair: tuple[bytes, bytes]) -> tuple[str, str]:
    """Write a key and a certificate; return the paths of the certificate and the key."""
    folder.mkdir(exist_ok=True)
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(pair[0])
    (folder / "certificate.pem").write_bytes(pair[1])
    return str(folder / "certificate.pem"), str(folder / "key.pem")


def authority_file(folder: Path, authority: Authority = AUTHORITY) -> str:
    path = folder / f"authority-{id(authority)}.pem"
    path.write_bytes(authority.pem)
    return str(path)


def make_server(folder: Path, pair: tuple[bytes, bytes], **of_chain: Any) -> Server:
    certificate, key = write(folder / "server", pair)
    settings = ServerSettings(
        listen="127.0.0.1:0",
        tls_certificate=certificate,
        tls_key=key,
        peer_authority=authority_file(folder),
        lame_duck_seconds=0,
        grace_seconds=0.1,
    )
    server = Server(settings, Chain(Tokens(), Telemetry(), **{"callers": Callers(), **of_chain}))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    server.add(worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, Workers())
    return server


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    server = make_server(tmp_path, AUTHORITY.issue(f"{TRUST_DOMAIN}builder"))
    yield f"127.0.0.1:{await server.start()}"
    await server.stop()


async def code(
    channel: grpc.aio.Channel,
    stub: Any,
    method: str,
    request: Any,
    *,
    token: str = ALLOWED.credential,
    **more: str,
) -> str:
    metadata = [("authorization", f"Bearer {token}"), *more.items()]
    metadata = [(name.replace("_", "-"), value) for name, value in metadata]
    try:
        await getattr(stub(channel), method)(request, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def verdicts(address: str, pair: tuple[bytes, bytes], **more: str) -> tuple[str, str]:
    """Say how an RPC for all and one for workers answer to whoever shows a certificate."""
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem, *pair)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        return (
            await code(channel, build_service_pb2_grpc.BuildServiceStub, "GetBuild", BUILD, **more),
            await code(
                channel, worker_service_pb2_grpc.WorkerServiceStub, "LeaseBuild", LEASE, **more
            ),
        )


DENIED, FORGED, AWAY = "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE"


async def test_certificates_open_what_they_are_for_and_no_more(address: str) -> None:
    def issue(name: str) -> tuple[bytes, bytes]:
        return AUTHORITY.issue(TRUST_DOMAIN + name)

    worker, builder, proxy = issue("worker"), issue("builder"), issue("proxy")
    assert await verdicts(address, worker) == ("OK", "OK")
    assert await verdicts(address, builder) == ("OK", DENIED)
    # A certificate stands for a process, never for a user.
    assert await verdicts(address, worker, token="none") == (FORGED, FORGED)
    # Through the proxy come users, and processes that it names; nobody names himself.
    assert await verdicts(address, proxy) == ("OK", DENIED)
    header = {"x_forwarded_client_cert": FORWARDED}
    assert await verdicts(address, proxy, **header) == ("OK", "OK")
    assert await verdicts(address, builder, **header) == ("OK", DENIED)
    for odd in (
        FORWARDED.replace("worker", "builder"),
        f"{FORWARDED},{FORWARDED}",
        f"{FORWARDED};URI={TRUST_DOMAIN}builder",
        f'Subject="a;URI={TRUST_DOMAIN}worker;b"',
        f"By={TRUST_DOMAIN}worker",
    ):
        assert await verdicts(address, proxy, x_forwarded_client_cert=odd) == ("OK", DENIED), odd
    # Of the right authority, but for nothing that is known.
    for name in ("", f"{TRUST_DOMAIN}somebody", "spiffe://elsewhere/worker"):
        assert await verdicts(address, AUTHORITY.issue(name)) == (DENIED, DENIED), name


@pytest.mark.parametrize("case", ["early", "late", "strange", "server", "none", "plaintext"])
async def test_what_is_no_valid_certificate_does_not_connect(address: str, case: str) -> None:
    name = f"{TRUST_DOMAIN}worker"
    if case == "plaintext":
        async with grpc.aio.insecure_channel(address) as channel:
            stub = build_service_pb2_grpc.BuildServiceStub
            assert await code(channel, stub, "GetBuild", BUILD) == AWAY
        return
    if case == "none":
        credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            stub = build_service_pb2_grpc.BuildServiceStub
            assert await code(channel, stub, "GetBuild", BUILD) == AWAY
        return
    shown = {
        "early": lambda: AUTHORITY.issue(name, begins=HOUR / 2),
        "late": lambda: AUTHORITY.issue(name, begins=-HOUR, ends=-HOUR / 60),
        "strange": lambda: STRANGERS.issue(name),
        "server": lambda: AUTHORITY.issue(name, usages=[SERVER]),
    }[case]()
    assert await verdicts(address, shown) == (AWAY, AWAY)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_versions_of_tls_are_refused(address: str, tmp_path: Path) -> None:
    certificate, key = write(tmp_path / "worker", AUTHORITY.issue(f"{TRUST_DOMAIN}worker"))
    host, _, port = address.partition(":")

    def shake_hands(version: ssl.TLSVersion) -> None:
        context = ssl.create_default_context(cafile=authority_file(tmp_path))
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            context.wrap_socket(wire, server_hostname=host).close()

    await asyncio.to_thread(shake_hands, ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(shake_hands, ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("case", ["good", "early", "late", "strange", "client", "elsewhere"])
async def test_a_server_that_is_none_is_not_talked_to(tmp_path: Path, case: str) -> None:
    name = f"{TRUST_DOMAIN}builder"
    shown = {
        "good": lambda: AUTHORITY.issue(name),
        "early": lambda: AUTHORITY.issue(name, begins=HOUR / 2),
        "late": lambda: AUTHORITY.issue(name, begins=-HOUR, ends=-HOUR / 60),
        "strange": lambda: STRANGERS.issue(name),
        "client": lambda: AUTHORITY.issue(name, usages=[CLIENT]),
        "elsewhere": lambda: AUTHORITY.issue(name, address="127.0.0.9"),
    }[case]()
    server = make_server(tmp_path, shown)
    port = await server.start()
    certificate, key = write(tmp_path / "worker", AUTHORITY.issue(f"{TRUST_DOMAIN}worker"))
    peer = Peer(
        f"127.0.0.1:{port}",
        root_certificates=authority_file(tmp_path),
        certificate=certificate,
        key=key,
    )
    stub = peer.stub(worker_service_pb2_grpc.WorkerServiceStub)
    try:
        if case == "good":
            await peer.call(stub.LeaseBuild, LEASE, credential="token")
        else:
            with pytest.raises(ServiceError, match="does not answer"):
                await peer.call(stub.LeaseBuild, LEASE, credential="token")
    finally:
        await peer.close()
        await server.stop()


async def test_what_is_not_safe_does_not_start(tmp_path: Path) -> None:
    certificate, key = write(tmp_path / "own", AUTHORITY.issue(f"{TRUST_DOMAIN}builder"))
    authority, public = authority_file(tmp_path), tmp_path / "public.pem"
    public.write_bytes((tmp_path / "own" / "key.pem").read_bytes())
    public.chmod(0o644)
    here = ServerSettings(listen="127.0.0.1:0")
    safe = replace(here, tls_certificate=certificate, tls_key=key)
    for settings in (
        replace(here, listen="0.0.0.0:0"),
        replace(safe, listen="0.0.0.0:0", reflection=True),
        replace(safe, tls_key=""),
        replace(safe, tls_key=str(public)),
        replace(safe, tls_certificate=key),
        replace(safe, peer_authority=str(tmp_path / "absent")),
        replace(here, peer_authority=authority),
    ):
        with pytest.raises(SettingsError):
            await Server(settings, Chain(Tokens(), Telemetry())).start()
    for target, more in (
        ("suite.example.com:7070", {}),
        ("suite.example.com:7070", {"certificate": certificate, "key": key}),
        ("127.0.0.1:7070", {"root_certificates": authority, "certificate": certificate}),
        ("127.0.0.1:7070", {"root_certificates": str(tmp_path / "absent")}),
    ):
        with pytest.raises(SettingsError):
            Peer(target, **more)


async def test_certificates_are_renewed_while_calls_go_on(tmp_path: Path) -> None:
    name = f"{TRUST_DOMAIN}builder"
    first, second = AUTHORITY.issue(name), AUTHORITY.issue(name)
    certificate, key = write(tmp_path / "own", first)
    settings = ServerSettings(
        listen="127.0.0.1:0",
        tls_certificate=certificate,
        tls_key=key,
        lame_duck_seconds=0,
        grace_seconds=0.1,
    )
    server = Server(settings, Chain(Tokens(), Telemetry()))
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, Builds())
    port = await server.start()
    stub = build_service_pb2_grpc.BuildServiceStub
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
    answers: Counter[str] = Counter()

    async def shown() -> str:
        found = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as fresh:
            answers[await code(fresh, stub, "GetBuild", BUILD)] += 1
        answers[await code(kept, stub, "GetBuild", BUILD)] += 1
        return found

    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as kept:
        assert await shown() == first[1].decode()
        (tmp_path / "own" / "certificate.pem").write_bytes(second[1])
        assert await shown() == first[1].decode()  # without its key it is worth nothing
        (tmp_path / "own" / "key.pem").write_bytes(second[0])
        assert await shown() == second[1].decode()
        (tmp_path / "own" / "certificate.pem").unlink()
        assert await shown() == second[1].decode()
    assert answers == {"OK": 8}
    await server.stop()
