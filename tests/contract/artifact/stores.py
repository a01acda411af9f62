"""Services of their own process, and a client of the storage service, for tests of the store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from modelyard.artifact.v1 import storage_pb2, storage_service_pb2_grpc
from modelyard.artifact.v1 import storage_service_pb2 as pb

from services.artifact.settings import PREFIX, ArtifactSettings
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import Yard


class Storehouse:
    """One project's view of the storage service."""

    def __init__(self, channel: grpc.aio.Channel, project: str = "alpha") -> None:
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self._stub = stub
        self.parent = f"projects/{project}"
        self._metadata = (("authorization", f"Bearer {project}-token"),)

    async def usage(self) -> storage_pb2.Usage:
        request = pb.GetUsageRequest(parent=self.parent)
        response: pb.GetUsageResponse = await self._stub.GetUsage(request, metadata=self._metadata)
        return response.usage

    async def set_quota(self, count: int) -> None:
        request = pb.SetQuotaRequest(parent=self.parent, quota_bytes=count)
        await self._stub.SetQuota(request, metadata=self._metadata)

    async def sweep(self, *, dry_run: bool = False) -> pb.SweepProjectResponse:
        request = pb.SweepProjectRequest(parent=self.parent, dry_run=dry_run)
        response: pb.SweepProjectResponse = await self._stub.SweepProject(
            request, metadata=self._metadata
        )
        return response

    async def verify(self, artifact: str) -> list[storage_pb2.DamagedFile]:
        request = pb.VerifyArtifactRequest(artifact=artifact)
        responses: list[pb.VerifyArtifactResponse] = [
            one async for one in self._stub.VerifyArtifact(request, metadata=self._metadata)
        ]
        assert responses[-1].done_bytes == responses[-1].total_bytes
        return [file for response in responses for file in response.damaged_files]


@dataclass(frozen=True, slots=True)
class Store:
    """A running service: its artifacts and its storage, and its process, if it has its own."""

    yard: Yard
    house: Storehouse
    process: int = 0


@asynccontextmanager
async def opened(settings: ArtifactSettings) -> AsyncIterator[Store]:
    """Run the service here."""
    async with serving(settings) as port, _connected(port) as store:
        yield store


@asynccontextmanager
async def spawned(settings: ArtifactSettings, *, under: Sequence[str] = ()) -> AsyncIterator[Store]:
    """Run the service in a process of its own, under another command; kill it at the end."""
    variables = {PREFIX + key.upper(): str(value) for key, value in asdict(settings).items()}
    started = await asyncio.create_subprocess_exec(
        *under,
        sys.executable,
        "-m",
        "tests.contract.artifact.serving",
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert started.stdout is not None
    try:
        port = int(await started.stdout.readline())
        async with _connected(port, process=started.pid) as store:
            yield store
    finally:
        kill(started.pid)
        await started.wait()


def kill(process: int) -> None:
    """Kill a process and all it started, if it is still there."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return


@asynccontextmanager
async def _connected(port: int, *, process: int = 0) -> AsyncIterator[Store]:
    async with connected(port) as stub, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Store(Yard(stub), Storehouse(channel), process)


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.05)
