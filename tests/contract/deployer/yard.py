"""A deployer on a real channel, people's calls to it, and a controller that a test plays."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from modelyard.deployer.v1 import (
    assignment_pb2,
    controller_service_pb2,
    controller_service_pb2_grpc,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    environment_pb2,
    environment_service_pb2,
    environment_service_pb2_grpc,
    rollout_pb2,
)
from modelyard.metadata.v1 import dataset_pb2

from services.common.auth import CachingAuthenticator
from services.common.rpc import status
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer, RemoteAuthenticator
from services.common.rpc.server import Server, ServerSettings
from services.common.service import Chassis, SuiteSettings
from services.common.telemetry import Telemetry
from services.deployer.settings import DeployerSettings
from services.deployer.wiring import compose
from tests.contract.deployer.registry import MODEL, PROJECT

ENVIRONMENT = f"{PROJECT}/environments/production"
DEPLOYMENT = f"{ENVIRONMENT}/deployments/churn"
LIVE = deployment_pb2.DEPLOYMENT_STATE_LIVE
FAILED = deployment_pb2.DEPLOYMENT_STATE_FAILED
STOPPED = deployment_pb2.DEPLOYMENT_STATE_STOPPED
STARTING = deployment_pb2.VARIANT_STATE_STARTING
READY = deployment_pb2.VARIANT_STATE_READY
BROKEN = deployment_pb2.VARIANT_STATE_FAILED
PATIENCE = 30.0


@asynccontextmanager
async def serving(
    settings: DeployerSettings, *, metadata_port: int, redis_url: str
) -> AsyncIterator[int]:
    """Run a replica of the deployer; give its port."""
    suite = SuiteSettings(suite_address=f"127.0.0.1:{metadata_port}", redis_url=redis_url)
    peer = Peer(suite.suite_address)
    service = await compose(Chassis(suite, peer), settings)
    quick = ServerSettings(listen="127.0.0.1:0", lame_duck_seconds=0, grace_seconds=0.2)
    authenticator = CachingAuthenticator(RemoteAuthenticator(peer))
    server = Server(quick, Chain(authenticator, Telemetry()))
    for register, servicer in service.servicers:
        server.add(register, servicer, service.trail)
    running = [asyncio.ensure_future(background()) for background in service.background]
    try:
        yield await server.start()
    finally:
        await server.stop()
        for task in running:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        for close in service.close:
            close()
        await peer.close()
        assert [o for o in outcomes if not isinstance(o, asyncio.CancelledError | None)] == []


class Person:
    """Calls a deployer as somebody."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        self._environments: Any = environment_service_pb2_grpc.EnvironmentServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]

    async def create_environment(
        self, *gates: environment_pb2.Gate, name: str = "production"
    ) -> environment_pb2.Environment:
        request = environment_service_pb2.CreateEnvironmentRequest(
            parent=PROJECT,
            environment_id=name,
            environment=environment_pb2.Environment(gates=gates),
        )
        answer = await self.environments("CreateEnvironment", request)
        found: environment_pb2.Environment = answer.environment
        return found

    async def deploy(self, version: int, **fields: Any) -> Any:
        request = deployment_service_pb2.DeployVersionRequest(
            parent=ENVIRONMENT, version=f"{MODEL}/versions/{version}", **fields
        )
        return await self.deployments("DeployVersion", request)

    async def roll_back(self, revision: int = 0, **fields: Any) -> Any:
        request = deployment_service_pb2.RollbackDeploymentRequest(
            name=DEPLOYMENT, revision=revision, **fields
        )
        return await self.deployments("RollbackDeployment", request)

    async def shadow(self, version: int, **fields: Any) -> Any:
        request = deployment_service_pb2.ShadowVersionRequest(
            parent=ENVIRONMENT, version=f"{MODEL}/versions/{version}", **fields
        )
        return await self.deployments("ShadowVersion", request)

    async def preview(self, version: int, name: str, value: str) -> Any:
        request = deployment_service_pb2.PreviewVersionRequest(
            parent=ENVIRONMENT,
            version=f"{MODEL}/versions/{version}",
            header_match=rollout_pb2.HeaderMatch(name=name, value=value),
        )
        return await self.deployments("PreviewVersion", request)

    async def change(self, what: str, **fields: Any) -> Any:
        """Continue or abort a rollout, or end a shadow."""
        kind = getattr(deployment_service_pb2, f"{what}Request")
        return await self.deployments(what, kind(name=DEPLOYMENT, **fields))

    async def stop(self) -> Any:
        request = deployment_service_pb2.StopDeploymentRequest(name=DEPLOYMENT)
        return await self.deployments("StopDeployment", request)

    async def get(self) -> deployment_pb2.Deployment:
        request = deployment_service_pb2.GetDeploymentRequest(name=DEPLOYMENT)
        answer = await self.deployments("GetDeployment", request)
        found: deployment_pb2.Deployment = answer.deployment
        return found

    async def revisions(self) -> list[deployment_pb2.Revision]:
        request = deployment_service_pb2.ListRevisionsRequest(parent=DEPLOYMENT)
        return list((await self.deployments("ListRevisions", request)).revisions)

    async def until(
        self, condition: Callable[[deployment_pb2.Deployment], bool]
    ) -> deployment_pb2.Deployment:
        """Wait until the deployment is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition(found := await self.get()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)
        return found

    async def journal(self, cursor: str = "") -> AsyncIterator[Any]:
        request = deployment_service_pb2.StreamDeploymentEventsRequest(
            deployment=DEPLOYMENT, cursor=cursor
        )
        stream = self._deployments.StreamDeploymentEvents(request, metadata=self._metadata)
        try:
            async for message in stream:
                yield message
        finally:
            stream.cancel()

    async def deployments(self, method: str, request: Any) -> Any:
        call = getattr(self._deployments, method)
        return await call(request, metadata=self._metadata, timeout=10)

    async def environments(self, method: str, request: Any) -> Any:
        call = getattr(self._environments, method)
        return await call(request, metadata=self._metadata, timeout=10)


class ScriptedController:
    """An inference controller whose doings a test decides."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: Any = controller_service_pb2_grpc.ControllerServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]
        self.seen: list[assignment_pb2.Assignment] = []

    async def watch(
        self, cursor: str = "", environment: str = ENVIRONMENT, *, controller: str = "scripted"
    ) -> AsyncGenerator[Any, None]:
        request = controller_service_pb2.WatchAssignmentsRequest(
            environment=environment, cursor=cursor, controller=controller
        )
        stream = self._stub.WatchAssignments(request, metadata=self._metadata)
        try:
            async for message in stream:
                self.seen += message.assignments
                yield message
        finally:
            stream.cancel()

    async def until(
        self, condition: Callable[[assignment_pb2.Assignment], bool]
    ) -> assignment_pb2.Assignment:
        """Wait for an assignment that is so."""
        async with asyncio.timeout(PATIENCE):
            async for message in self.watch():
                for assignment in message.assignments:
                    if condition(assignment):
                        found: assignment_pb2.Assignment = assignment
                        return found
        raise AssertionError

    async def report(
        self,
        assignment: assignment_pb2.Assignment,
        states: dict[int, Any],
        *,
        applied: bool = True,
        failure: tuple[str, str] | None = None,
        traffic: dict[int, rollout_pb2.VariantTraffic] | None = None,
        controller: str = "scripted",
    ) -> None:
        report = assignment_pb2.AssignmentStatus(
            deployment=assignment.deployment,
            generation=assignment.generation,
            weights_applied=applied,
        )
        for revision, state in states.items():
            variant = report.variants.add(revision=revision, state=state)
            if state == BROKEN and failure:
                variant.failure.reason, variant.failure.message = failure
            if traffic and revision in traffic:
                variant.traffic.CopyFrom(traffic[revision])
        request = controller_service_pb2.ReportStatusRequest(
            controller=controller, status=report, address="127.0.0.1:7080"
        )
        await self._stub.ReportStatus(request, metadata=self._metadata, timeout=10)

    async def sample(
        self, revision: int, digest: str, *, rows: int = 10, controller: str = "scripted"
    ) -> str:
        """Send sampled requests; return the dataset version."""
        sample = dataset_pb2.DatasetVersion(digest=digest, row_count=rows)
        sample.schema.add(name="x", type="float64")
        sample.source.start_time.FromSeconds(1_000)
        sample.source.end_time.FromSeconds(2_000)
        request = controller_service_pb2.RecordSampleRequest(
            controller=controller, deployment=DEPLOYMENT, revision=revision, sample=sample
        )
        answer = await self._stub.RecordSample(request, metadata=self._metadata, timeout=10)
        return str(answer.dataset_version)

    async def grant(self, artifact: str) -> Any:
        request = controller_service_pb2.CreateGrantRequest(
            deployment=DEPLOYMENT, artifact=artifact
        )
        return await self._stub.CreateGrant(request, metadata=self._metadata, timeout=10)

    async def obey(self) -> None:
        """Do all that is assigned at once, until cancelled."""
        async for message in self.watch():
            for assignment in message.assignments:
                states = {variant.revision: READY for variant in assignment.variants}
                await self.report(assignment, states)


@asynccontextmanager
async def obeying(controller: ScriptedController) -> AsyncIterator[None]:
    """Let a controller do all that is assigned."""
    task = asyncio.ensure_future(controller.obey())
    try:
        yield
    finally:
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError), outcome


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it looks at belongs to a server
            await asyncio.sleep(0.02)


def traffic(requests: int, errors: int = 0, *, ms: float = 10.0) -> rollout_pb2.VariantTraffic:
    """Count requests that all took so long."""
    counted = rollout_pb2.VariantTraffic(request_count=requests, error_count=errors)
    for bound in (ms, math.inf):
        counted.latency_buckets.add(upper_milliseconds=bound, cumulative_count=requests)
    return counted


def weights(assignment: assignment_pb2.Assignment) -> dict[int, int]:
    """Return the shares by revision."""
    return {variant.revision: variant.weight for variant in assignment.variants}


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return an error's documented reason."""
    wire = dict(error.trailing_metadata() or ())[status.DETAILS_KEY]
    info = error_details_pb2.ErrorInfo()
    assert isinstance(wire, bytes)
    for detail in status_pb2.Status.FromString(wire).details:
        detail.Unpack(info)
    return str(info.reason)
