"""A metadata service and an artifact service for tests, and a caller's desk before them.

Both are real, each on a port of its own, each other's peer: metadata holds
artifacts there, the artifact service introspects credentials here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
from modelyard.metadata.v1 import (
    comparison_service_pb2_grpc,
    dataset_service_pb2_grpc,
    lineage_service_pb2_grpc,
    member_service_pb2_grpc,
    model_service_pb2_grpc,
    project_service_pb2_grpc,
    run_service_pb2_grpc,
    token_pb2,
    version_pb2,
)
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import project_service_pb2 as projects_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from services.artifact.settings import ArtifactSettings
from services.artifact.wiring import compose as compose_artifact
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer, RemoteAuthenticator
from services.common.rpc.server import Server, ServerSettings
from services.common.service import Chassis, Service, SuiteSettings
from services.common.telemetry import Telemetry
from services.metadata.settings import MetadataSettings
from services.metadata.wiring import compose
from tests.contract.artifact.yard import Content, Yard, reason

if TYPE_CHECKING:
    from modelyard.metadata.v1.comparison_service_pb2_grpc import ComparisonServiceAsyncStub
    from modelyard.metadata.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub
    from modelyard.metadata.v1.lineage_service_pb2_grpc import LineageServiceAsyncStub
    from modelyard.metadata.v1.member_service_pb2_grpc import MemberServiceAsyncStub
    from modelyard.metadata.v1.model_service_pb2_grpc import ModelServiceAsyncStub
    from modelyard.metadata.v1.project_service_pb2_grpc import ProjectServiceAsyncStub
    from modelyard.metadata.v1.run_service_pb2_grpc import RunServiceAsyncStub

SECONDS = 20.0
PROJECT = "projects/default"
MODEL = f"{PROJECT}/models/churn"
ABSENT = f"{PROJECT}/artifacts/{'0' * 64}"


@dataclass(frozen=True, slots=True)
class House:
    """A running metadata service."""

    port: int
    artifact_port: int
    tokens: Path

    def secret(self, name: str) -> str:
        """Read one of the installation's token files."""
        return (self.tokens / f"{name}.token").read_text().strip()


@asynccontextmanager
async def metadata_running(settings: MetadataSettings, artifact_port: int) -> AsyncIterator[House]:
    """Run the metadata service; nobody caches what it says of a credential."""
    peer = Peer(f"127.0.0.1:{artifact_port}")
    service = await compose(Chassis(SuiteSettings(), peer), settings)
    assert service.authenticator is not None
    chain = Chain(service.authenticator, Telemetry(), recheck_seconds=0.1)
    async with _serving(service, chain, port=0) as port:
        yield House(port, artifact_port, Path(settings.tokens_dir))
    await peer.close()


@asynccontextmanager
async def artifacts_running(house: House, data: Path) -> AsyncIterator[None]:
    """Run the artifact service where the house's metadata service looks for it."""
    peer = Peer(f"127.0.0.1:{house.port}")
    service = await compose_artifact(
        Chassis(SuiteSettings(), peer), ArtifactSettings(data=str(data))
    )
    chain = Chain(RemoteAuthenticator(peer), Telemetry())
    async with _serving(service, chain, port=house.artifact_port):
        yield
    await peer.close()


@asynccontextmanager
async def _serving(service: Service, chain: Chain, *, port: int) -> AsyncIterator[int]:
    quick = ServerSettings(listen=f"127.0.0.1:{port}", lame_duck_seconds=0, grace_seconds=0.2)
    server = Server(quick, chain)
    for register, servicer in service.servicers:
        server.add(register, servicer, service.trail)
    tasks = [asyncio.ensure_future(background()) for background in service.background]
    try:
        yield await server.start()
    finally:
        await server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for close in service.close:
            close()


class Desk:
    """One caller's way of calling metadata."""

    def __init__(self, channel: grpc.aio.Channel, house: House, credential: str) -> None:
        self._channel = channel
        self.house = house
        self.credential = credential
        self.metadata = (("authorization", f"Bearer {credential}"),)
        self.projects = cast(
            "ProjectServiceAsyncStub", project_service_pb2_grpc.ProjectServiceStub(channel)
        )
        self.members = cast(
            "MemberServiceAsyncStub", member_service_pb2_grpc.MemberServiceStub(channel)
        )
        self.models = cast(
            "ModelServiceAsyncStub", model_service_pb2_grpc.ModelServiceStub(channel)
        )
        self.runs = cast("RunServiceAsyncStub", run_service_pb2_grpc.RunServiceStub(channel))
        self.datasets = cast(
            "DatasetServiceAsyncStub", dataset_service_pb2_grpc.DatasetServiceStub(channel)
        )
        self.lineage = cast(
            "LineageServiceAsyncStub", lineage_service_pb2_grpc.LineageServiceStub(channel)
        )
        self.comparisons = cast(
            "ComparisonServiceAsyncStub", comparison_service_pb2_grpc.ComparisonServiceStub(channel)
        )

    def as_caller(self, credential: str) -> Desk:
        """Give the same desk to another caller."""
        return Desk(self._channel, self.house, credential)

    async def call(self, method: Any, request: Any) -> Any:
        """Call a unary method."""
        return await method(request, metadata=self.metadata, timeout=SECONDS)

    async def refused(self, method: Any, request: Any) -> tuple[grpc.StatusCode, str]:
        """Call a method that refuses; return its code and reason."""
        return (await self.refusal(method, request))[:2]

    async def refusal(
        self, method: Any, request: Any
    ) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        """Call a method that refuses; return its code, reason and metadata."""
        try:
            answer = await self.call(method, request)
        except grpc.aio.AioRpcError as error:
            return reason(error)
        raise AssertionError(f"not refused: {answer}")

    async def new_caller(self, principal: str, *grants: token_pb2.Grant, **rest: Any) -> Desk:
        """Create a token and give its owner a desk."""
        token = token_pb2.Token(principal=principal, grants=grants, **rest)
        request = projects_pb.CreateTokenRequest(token=token)
        return self.as_caller((await self.call(self.projects.CreateToken, request)).secret)

    async def push(self) -> str:
        """Push a small tree to the artifact service; return the artifact's name."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.house.artifact_port}") as channel:
            from modelyard.artifact.v1 import artifact_service_pb2_grpc

            stub: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
            yard = Yard(stub, "default", token=self.credential)
            return (await yard.push({"model/state.bin": Content(b"weights")})).name

    async def new_version(
        self, artifact: str, *, parent: str = MODEL, aliases: tuple[str, ...] = (), **fields: Any
    ) -> version_pb2.Version:
        """Register a version."""
        request = models_pb.CreateVersionRequest(
            parent=parent,
            version=version_pb2.Version(artifact=artifact, **fields),
            aliases=aliases,
        )
        found: version_pb2.Version = (await self.call(self.models.CreateVersion, request)).version
        return found

    async def new_run(self, run_id: str = "", *, parent: str = MODEL) -> str:
        """Start a run; return its name."""
        request = runs_pb.CreateRunRequest(parent=parent, run_id=run_id)
        name: str = (await self.call(self.runs.CreateRun, request)).run.name
        return name

    async def ingest(self, *batches: runs_pb.IngestRunDataRequest) -> list[int]:
        """Send batches on one stream; return what was acknowledged."""

        async def messages() -> AsyncIterator[runs_pb.IngestRunDataRequest]:
            for batch in batches:
                yield batch

        call = self.runs.IngestRunData(messages(), metadata=self.metadata, timeout=SECONDS)
        return [answer.acknowledged_sequence async for answer in call]

    async def log(self, run: str, **figures: float) -> None:
        """Log one point of some metrics."""
        batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
        for key, value in figures.items():
            batch.metrics.add(key=key, steps=[0], times_us=[1], values=[value])
        await self.ingest(batch)


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float = 15.0) -> None:
    """Wait until a condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came to be"
        await asyncio.sleep(0.05)
