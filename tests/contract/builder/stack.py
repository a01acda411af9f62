"""A real metadata, artifact and builder service on one port, for tests of builds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from modelyard import AsyncClient

from services.artifact.settings import ArtifactSettings
from services.artifact.wiring import compose as compose_artifact
from services.builder.settings import BuilderSettings
from services.builder.wiring import compose as compose_builder
from services.builder.worker.builder_client import BuilderClient
from services.common.auth import Authenticator, CachingAuthenticator
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer, RemoteAuthenticator
from services.common.rpc.server import Server, ServerSettings
from services.common.service import Chassis, Service, SuiteSettings
from services.common.telemetry import Telemetry
from services.deployer.settings import DeployerSettings
from services.deployer.wiring import compose as compose_deployer
from services.metadata.settings import MetadataSettings
from services.metadata.wiring import compose as compose_metadata
from services.suite.start import free_port

NONE_ELSEWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stack:
    """Running services and who may do what there."""

    data: Path
    address: str

    @property
    def gate(self) -> Path:
        """Return a folder of the tests' own that builds can see."""
        return self.data / "gate"

    def token(self, name: str) -> str:
        """Return one of the installation's own tokens."""
        return (self.data / "tokens" / f"{name}.token").read_text().strip()

    def client(self) -> AsyncClient:
        """Connect as the administrator."""
        return AsyncClient(self.address, token=self.token("admin"), project="default")

    @asynccontextmanager
    async def worker_client(self) -> AsyncIterator[BuilderClient]:
        """Speak to the builder as a worker does."""
        peer = Peer(self.address)
        try:
            yield BuilderClient(peer, own_token=lambda: self.token("worker"))
        finally:
            await peer.close()

    @asynccontextmanager
    async def worker(
        self, *, environments: Path, git_http: str = "0", **more: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a real worker process; killed at the end if it still runs."""
        self.gate.mkdir(exist_ok=True)
        wheel = next(environments.glob("*.whl"))  # noqa: ASYNC240 - a test's own file
        variables = {
            "MODELYARD_SUITE_ADDRESS": self.address,
            "MODELYARD_WORKER_TOKEN_FILE": str(self.data / "tokens" / "worker.token"),
            "MODELYARD_WORKER_DATA": str(self.data / "worker"),
            "MODELYARD_WORKER_ENVIRONMENTS": str(environments),
            "MODELYARD_CLIENT_WHEEL": str(wheel),
            "MODELYARD_WORKER_GRACE_SECONDS": "0.5",
            "MODELYARD_WORKER_GIT_HTTP": git_http,
            "MODELYARD_WORKER_SANDBOX_PATHS": str(self.gate),
            **more,
        }
        with (self.data / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.builder.worker"),
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()


@asynccontextmanager
async def running(
    data: Path,
    *,
    builder: BuilderSettings,
    redis_url: str = "",
    delegation_seconds: float = 600.0,
    calendar: Callable[[], datetime] | None = None,
    databases: Mapping[str, str] = NONE_ELSEWHERE,
    artifact: ArtifactSettings | None = None,
    address: str = "",
    grace_seconds: float = 0.2,
) -> AsyncIterator[Stack]:
    """Run the services that a build needs, on a free port if no address is given.

    `calendar` is the clock of automations; with one the deployer runs, too. `databases` are the
    URLs of services that are not to use SQLite; the builder's and the artifact service's stand
    in their settings.
    """
    address = address or f"127.0.0.1:{free_port()}"
    suite = SuiteSettings(suite_address=address, redis_url=redis_url)
    peer = Peer(address)
    chassis = Chassis(suite, peer)
    settings = MetadataSettings(
        database_url=databases.get("metadata", f"sqlite:///{data / 'metadata.db'}"),
        webhook_networks="127.0.0.0/8",
        tokens_dir=str(data / "tokens"),
        delegation_seconds=delegation_seconds,
    )
    builder = replace(builder, token_file=str(data / "tokens" / "builder.token"))
    services = [
        await compose_metadata(chassis, settings),
        await compose_artifact(chassis, artifact or ArtifactSettings(data=str(data / "artifact"))),
        await compose_builder(chassis, builder, calendar=calendar),
    ]
    if calendar is not None:
        url = databases.get("deployer", f"sqlite:///{data / 'deployer.db'}")
        services.append(await compose_deployer(chassis, _deployer_settings(data, url)))
    authenticator = services[0].authenticator
    assert authenticator is not None
    async with _serving(services, address, authenticator, grace_seconds):
        yield Stack(data, address)
    await peer.close()


@asynccontextmanager
async def replica(
    stack: Stack,
    *,
    builder: BuilderSettings,
    redis_url: str,
    calendar: Callable[[], datetime] | None = None,
) -> AsyncIterator[str]:
    """Run a second builder on the same database; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    peer = Peer(stack.address)
    chassis = Chassis(SuiteSettings(suite_address=stack.address, redis_url=redis_url), peer)
    token_file = str(stack.data / "tokens" / "builder.token")
    builder = replace(builder, token_file=token_file)
    services = [await compose_builder(chassis, builder, calendar=calendar)]
    async with _serving(services, address, RemoteAuthenticator(peer)):
        yield address
    await peer.close()


@asynccontextmanager
async def _serving(
    services: Sequence[Service],
    address: str,
    authenticator: Authenticator,
    grace_seconds: float = 0.2,
) -> AsyncIterator[None]:
    quick = ServerSettings(listen=address, lame_duck_seconds=0, grace_seconds=grace_seconds)
    server = Server(quick, Chain(CachingAuthenticator(authenticator), Telemetry()))
    for service in services:
        for register, servicer in service.servicers:
            server.add(register, servicer, service.trail)
    await server.start()
    loops = [
        asyncio.ensure_future(work())
        for service in services
        for work in (*service.background, *service.doors)
    ]
    try:
        yield
    finally:
        await server.stop()
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
        for service in services:
            for close in service.close:
                close()


def _deployer_settings(data: Path, url: str) -> DeployerSettings:
    return DeployerSettings(
        database_url=url,
        token_file=str(data / "tokens" / "deployer.token"),
        tick_seconds=0.1,
    )
