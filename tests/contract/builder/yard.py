"""Orders builds and plays the worker, over real channels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient
from modelyard.builder.v1 import (
    build_event_pb2,
    build_pb2,
    build_service_pb2,
    build_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from modelyard.common.v1 import failure_pb2

from services.common.errors import ServiceError
from services.common.rpc import status
from tests.contract.builder.stack import Stack

PHASES = [kind for kind in build_pb2.PhaseKind.values() if kind]
RUNNING, SUCCEEDED = build_pb2.PHASE_STATE_RUNNING, build_pb2.PHASE_STATE_SUCCEEDED
FAILED = build_pb2.PHASE_STATE_FAILED
Lease = worker_service_pb2.Lease


@dataclass(slots=True)
class Yard:
    """One who orders builds, and one who takes them."""

    stack: Stack
    client: AsyncClient
    builds: Any
    workers: Any
    source: str

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack) -> AsyncIterator[Yard]:
        folder = stack.data / "source"
        folder.mkdir(exist_ok=True)
        (folder / "model.py").write_text("pass\n")
        async with (
            stack.client() as client,
            grpc.aio.insecure_channel(stack.address) as channel,
        ):
            source = (await client.artifacts.push(folder)).name
            yield cls(
                stack,
                client,
                build_service_pb2_grpc.BuildServiceStub(channel),
                worker_service_pb2_grpc.WorkerServiceStub(channel),
                source,
            )

    def at(self, channel: grpc.aio.Channel) -> Yard:
        """Do the same at another replica."""
        builds = build_service_pb2_grpc.BuildServiceStub(channel)
        workers = worker_service_pb2_grpc.WorkerServiceStub(channel)
        return replace(self, builds=builds, workers=workers)

    async def order(self, **fields: Any) -> build_pb2.Build:
        """Order a build."""
        spec = build_pb2.BuildSpec(**{"source": self.source, **fields})
        return await self.create(spec)

    async def create(
        self, spec: build_pb2.BuildSpec, *, request_id: str = "", model: str = "churn"
    ) -> build_pb2.Build:
        request = build_service_pb2.CreateBuildRequest(
            parent="projects/default",
            build=build_pb2.Build(model=f"projects/default/models/{model}", spec=spec),
            request_id=request_id,
        )
        return await self._build(self.builds.CreateBuild, request)

    async def get(self, name: str) -> build_pb2.Build:
        request = build_service_pb2.GetBuildRequest(name=name)
        return await self._build(self.builds.GetBuild, request)

    async def cancel(self, name: str) -> build_pb2.Build:
        request = build_service_pb2.CancelBuildRequest(name=name)
        return await self._build(self.builds.CancelBuild, request)

    async def take(self, worker: str = "w1", wait: float = 5, **told: Any) -> Any:
        request = worker_service_pb2.LeaseBuildRequest(worker=worker, **told)
        request.wait.FromMilliseconds(int(wait * 1000))
        return await self.work(self.workers.LeaseBuild, request)

    async def extend(self, lease: Lease, wait: float = 0) -> Any:
        request = worker_service_pb2.ExtendLeaseRequest(lease=lease)
        request.wait.FromMilliseconds(int(wait * 1000))
        return await self.work(self.workers.ExtendLease, request)

    async def secrets(self, lease: Lease) -> dict[str, str]:
        request = worker_service_pb2.GetBuildSecretsRequest(lease=lease)
        answer = await self.work(self.workers.GetBuildSecrets, request)
        return {found.secret: found.value for found in answer.secrets}

    async def report_source(
        self, lease: Lease, source: str, origin: build_pb2.SourceOrigin
    ) -> None:
        request = worker_service_pb2.ReportSourceRequest(lease=lease, source=source, origin=origin)
        await self.work(self.workers.ReportSource, request)

    async def phase(self, lease: Lease, kind: Any, state: Any, **fields: Any) -> None:
        request = worker_service_pb2.ReportPhaseRequest(
            lease=lease, kind=kind, state=state, **fields
        )
        await self.work(self.workers.ReportPhase, request)

    async def pass_phases(self, lease: Lease) -> None:
        """Bring a build to its register phase."""
        for kind in PHASES:
            await self.phase(lease, kind, RUNNING)
            if kind != build_pb2.PHASE_KIND_REGISTER:
                await self.phase(lease, kind, SUCCEEDED)

    async def register(self, lease: Lease, artifact: str = "") -> str:
        request = worker_service_pb2.RegisterBuildRequest(
            lease=lease, artifact=artifact or self.source, tests_passed=True
        )
        answer = await self.work(self.workers.RegisterBuild, request)
        return str(answer.version)

    async def end(self, lease: Lease, reason: str = "") -> None:
        failure = failure_pb2.Failure(reason=reason, message="so it is") if reason else None
        request = worker_service_pb2.EndAttemptRequest(lease=lease, failure=failure)
        await self.work(self.workers.EndAttempt, request)

    async def send(self, lease: Lease, *batches: tuple[int, bytes]) -> list[int]:
        """Send numbered batches on one stream; return what was acknowledged."""
        requests = [
            worker_service_pb2.ReportEventsRequest(lease=lease, sequence=number, batch=batch)
            for number, batch in batches
        ]
        call = self.workers.ReportEvents(iter(requests), metadata=self._bearer("worker"))
        try:
            return [answer.acknowledged_sequence async for answer in call]
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error

    def stream(self, build: str, cursor: str = "", **wanted: Any) -> Any:
        request = build_service_pb2.StreamBuildEventsRequest(build=build, cursor=cursor, **wanted)
        return self.builds.StreamBuildEvents(request, metadata=self._bearer("admin"), timeout=1_200)

    async def events(self, build: str, cursor: str = "", **wanted: Any) -> list[Any]:
        """Read a stream to its end."""
        found: list[Any] = []
        try:
            async for message in self.stream(build, cursor, **wanted):
                found += message.events
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error
        return found

    async def _build(self, method: Any, request: Any) -> build_pb2.Build:
        answer = await self.admin(method, request)
        build: build_pb2.Build = answer.build
        return build

    async def admin(self, method: Any, request: Any) -> Any:
        return await self._call(method, request, "admin")

    async def work(self, method: Any, request: Any) -> Any:
        return await self._call(method, request, "worker")

    async def _call(self, method: Any, request: Any, who: str) -> Any:
        try:
            return await method(request, metadata=self._bearer(who), timeout=20)
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error

    def _bearer(self, who: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.stack.token(who)}")]


def lines(*texts: str) -> bytes:
    """Make a batch of printed lines."""
    batch = build_event_pb2.BuildEventBatch()
    for text in texts:
        batch.events.add().log.text = text
    return batch.SerializeToString()


async def refused(awaitable: Awaitable[Any], reason: str) -> ServiceError:
    """Expect a call to be refused for a reason."""
    with pytest.raises(ServiceError) as caught:
        await awaitable
    assert caught.value.reason == reason
    return caught.value


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 20.0) -> Any:
    """Wait for a condition; return its first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = await condition()
        if value:
            return value
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true")


def write_source(folder: Path, **files: str) -> Path:
    """Write a source tree; `test_x` stands for `test_x.py`."""
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder
