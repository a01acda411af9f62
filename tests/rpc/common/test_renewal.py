"""Keys, certificates and their authority are replaced under load, and no call fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import Client
from modelyard.builder.v1 import build_service_pb2, build_service_pb2_grpc

from services.common.rpc.callers import TRUST_DOMAIN, Callers
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer
from services.common.rpc.server import Server, ServerSettings
from services.common.telemetry import Telemetry
from tests.certificates import Authority
from tests.rpc.common.test_mutual_tls import ALLOWED, BUILD, Builds, Tokens
from tests.rpc.common.test_revocation import put

CALLERS = 4
SECONDS = 60.0
ROUNDS = [1, pytest.param(20, marks=pytest.mark.slow)]
"""How often everything is replaced."""


class Seen(Builds):
    """Builds, and from where and with what it was asked for them."""

    def __init__(self) -> None:
        self.calls = 0
        self.connections: set[str] = set()
        self.shown: list[bytes] = []
        self.asked = asyncio.Event()

    async def GetBuild(self, request: Any, context: Any) -> Any:
        self.calls += 1
        self.connections.add(context.peer())
        self.shown = list(context.auth_context().get("x509_pem_cert", ()))
        self.asked.set()
        return build_service_pb2.GetBuildResponse()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self.asked.clear()
                await self.asked.wait()

    async def until_called(self) -> None:
        """Wait for as many calls as it takes to see the files once more."""
        before, begun = self.calls, time.monotonic()
        await self.until(lambda: self.calls > before + 10 and time.monotonic() > begun + 0.1)

    async def until_connected_anew(self) -> None:
        before = set(self.connections)
        await self.until(lambda: not self.connections <= before)


@dataclass
class Site:
    """A server, what it and its callers have in files, and who issues their certificates."""

    folder: Path
    seen: Seen
    address: str = ""
    authority: Authority = field(default_factory=lambda: Authority(title="number 0"))
    number: int = 0

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def put(self, name: str, content: bytes) -> None:
        draft = self.folder / f"{name}.pem"
        put(draft, content)
        draft.chmod(0o600)

    def trust(self, *authorities: Authority) -> None:
        """Have both sides trust some authorities."""
        for side in ("server", "client"):
            self.put(f"{side}-authority", b"".join(one.pem for one in authorities))

    def issue(self, side: str, name: str) -> bytes:
        """Give a side a new pair, one file after the other; return its certificate."""
        key, certificate = self.authority.issue(TRUST_DOMAIN + name)
        self.put(f"{side}-key", key)
        self.put(side, certificate)
        return certificate

    def next_authority(self) -> Authority:
        """Have another one issue certificates; return the one that did."""
        before, self.number = self.authority, self.number + 1
        self.authority = Authority(title=f"number {self.number}")
        return before


@asynccontextmanager
async def serving(folder: Path, *, mutual: bool) -> AsyncIterator[Site]:
    site = Site(folder, Seen())
    site.trust(site.authority)
    site.issue("server", "builder")
    site.issue("client", "worker")
    settings = ServerSettings(
        listen="127.0.0.1:0",
        tls_certificate=site.file("server"),
        tls_key=site.file("server-key"),
        peer_authority=site.file("server-authority") if mutual else "",
        lame_duck_seconds=0,
        grace_seconds=0.1,
    )
    chain = Chain(Tokens(), Telemetry(), callers=Callers() if mutual else None)
    server = Server(settings, chain)
    server.add(build_service_pb2_grpc.add_BuildServiceServicer_to_server, site.seen)
    site.address = f"127.0.0.1:{await server.start()}"
    yield site
    await server.stop()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files looked at oftener than every second."""
    monkeypatch.setattr("modelyard._transport.file_changes.LOOK_SECONDS", 0.05)


async def replace_all(site: Site) -> None:
    """Replace the authority and each certificate, in the order in which one does that."""
    before = site.next_authority()
    site.trust(before, site.authority)
    await site.seen.until_connected_anew()
    site.issue("server", "builder")
    shown = site.issue("client", "worker")
    if site.seen.shown:
        await site.seen.until(lambda: shown in site.seen.shown)
    site.trust(site.authority)
    await site.seen.until_connected_anew()


async def load(
    site: Site,
    call: Callable[[], Awaitable[object]],
    rounds: int,
    change: Callable[[], Awaitable[None]],
) -> None:
    """Call all the time while everything is replaced; what fails is raised."""
    done = asyncio.Event()

    async def caller() -> None:
        while not done.is_set():
            await call()

    callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
    for _ in range(rounds):
        await change()
    done.set()
    await asyncio.gather(*callers)
    print(f"{rounds} x everything replaced: {site.seen.calls} calls, 0 failed")


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_services_call_each_other_on(tmp_path: Path, rounds: int) -> None:
    async with serving(tmp_path, mutual=True) as site:
        old, old_pair = site.authority, site.authority.issue(f"{TRUST_DOMAIN}worker")
        peer = Peer(
            site.address,
            root_certificates=site.file("client-authority"),
            certificate=site.file("client"),
            key=site.file("client-key"),
        )
        wanted = build_service_pb2.StreamBuildEventsRequest(build=BUILD.name)
        stub: Any = peer.stub(build_service_pb2_grpc.BuildServiceStub)
        metadata = (("authorization", f"Bearer {ALLOWED.credential}"),)
        followed = aiter(stub.StreamBuildEvents(wanted, metadata=metadata, timeout=SECONDS))

        async def call() -> None:
            stub: Any = peer.stub(build_service_pb2_grpc.BuildServiceStub)
            await peer.call(stub.GetBuild, BUILD, credential=ALLOWED.credential)

        async def change() -> None:
            await anext(followed)
            await replace_all(site)
            await anext(followed)

        del stub
        await load(site, call, rounds, change)
        # Whom nobody trusts any more is not let in; the stream of then goes on.
        credentials = grpc.ssl_channel_credentials(old.pem + site.authority.pem, *old_pair)
        async with grpc.aio.secure_channel(site.address, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                late: Any = build_service_pb2_grpc.BuildServiceStub(channel)
                await late.GetBuild(BUILD, metadata=metadata, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await anext(followed)
        await peer.close()


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_the_stock_client_calls_on(tmp_path: Path, rounds: int) -> None:
    async with serving(tmp_path, mutual=False) as site:
        with Client(
            site.address,
            token=ALLOWED.credential,
            project="p",
            root_certificates=site.file("client-authority"),
        ) as client:

            async def call() -> None:
                await asyncio.to_thread(client.builds.get, "b")

            await load(site, call, rounds, lambda: replace_all(site))
            # A file that is not whole, as while it is written, changes nothing.
            whole = site.authority.pem
            site.put("client-authority", whole[: len(whole) // 2])
            await load(site, call, 1, site.seen.until_called)
