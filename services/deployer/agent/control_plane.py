"""The deployer, as the agent sees it: what to run, how to fetch it, whom to tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from modelyard.common.v1 import failure_pb2
from modelyard.deployer.v1 import (
    assignment_pb2,
    controller_service_pb2,
    controller_service_pb2_grpc,
    deployment_pb2,
)
from modelyard.metadata.v1 import dataset_pb2

from services.common.errors import Reason, ServiceError
from services.common.names import DeploymentName
from services.common.own_token import OwnToken
from services.common.rpc import status
from services.common.rpc.peers import Peer
from services.deployer.domain import AssignedVariant, Assignment, Report, Sample, VariantReport
from services.deployer.rollouts import plan_codec

# The deployer sends something at least every 15 seconds; one that was stopped, and whose proxy
# does not notice, must not keep what others decide from here for long.
SILENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the deployer said is assigned."""

    assignments: dict[DeploymentName, Assignment]
    everything: bool
    """Whether these are all assignments there are."""


class ControlPlane:
    """The deployer's ControllerService."""

    def __init__(
        self, peer: Peer, *, own_token: OwnToken, controller: str, environment: str
    ) -> None:
        self._peer = peer
        self._own_token = own_token
        self._controller = controller
        self._environment = environment
        self._cursor = ""

    async def watch(self) -> AsyncIterator[Told]:
        """Yield what is assigned, then what changes; goes on where the last watch ended.

        Raises:
            ServiceError: the deployer is away, refuses, or fell silent.
        """
        try:
            async for told in self._watch():
                yield told
        except grpc.aio.AioRpcError as error:
            failure = status.decode(error)
            if failure.reason in (Reason.INVALID_CURSOR, Reason.CURSOR_EXPIRED):
                self._cursor = ""
            raise failure from error
        except TimeoutError:
            raise ServiceError(Reason.SERVICE_UNAVAILABLE, "the deployer fell silent") from None

    async def report(self, name: DeploymentName, report: Report, *, address: str) -> None:
        """Say what was made of an assignment, and where predictions are served."""
        request = controller_service_pb2.ReportStatusRequest(
            controller=self._controller,
            status=_encode_report(name, report),
            address=address,
        )
        await self._peer.call(self._stub.ReportStatus, request, credential=self._own_token.read())

    async def grant(self, name: DeploymentName, artifact: str) -> str:
        """Return a credential that reads an assigned artifact, for a while."""
        request = controller_service_pb2.CreateGrantRequest(deployment=str(name), artifact=artifact)
        answer = await self._peer.call(
            self._stub.CreateGrant, request, credential=self._own_token.read()
        )
        return str(answer.grant)

    async def record_sample(self, name: DeploymentName, revision: int, sample: Sample) -> None:
        """Send sampled requests, summed up."""
        version = dataset_pb2.DatasetVersion.FromString(sample.columns)
        version.digest, version.row_count = sample.digest, sample.row_count
        version.source.start_time.FromDatetime(sample.start_time)
        version.source.end_time.FromDatetime(sample.end_time)
        request = controller_service_pb2.RecordSampleRequest(
            controller=self._controller, deployment=str(name), revision=revision, sample=version
        )
        await self._peer.call(self._stub.RecordSample, request, credential=self._own_token.read())

    async def _watch(self) -> AsyncIterator[Told]:
        request = controller_service_pb2.WatchAssignmentsRequest(
            environment=self._environment, cursor=self._cursor, controller=self._controller
        )
        metadata = [("authorization", f"Bearer {self._own_token.read()}")]
        stream = self._stub.WatchAssignments(request, metadata=metadata)
        gathered: dict[DeploymentName, Assignment] | None = None if self._cursor else {}
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    return
                told = dict(_decode_assignment(a) for a in message.assignments)
                if gathered is None:
                    yield Told(told, everything=False)
                    self._cursor = message.cursor
                    continue
                # Only a whole picture says what is no longer assigned.
                gathered |= told
                if message.complete:
                    yield Told(gathered, everything=True)
                    self._cursor, gathered = message.cursor, None
        finally:
            stream.cancel()

    @property
    def _stub(self) -> Any:
        return self._peer.stub(controller_service_pb2_grpc.ControllerServiceStub)


def _decode_assignment(
    message: assignment_pb2.Assignment,
) -> tuple[DeploymentName, Assignment]:
    variants = tuple(
        AssignedVariant(
            revision=variant.revision,
            version=variant.version,
            artifact=variant.artifact,
            weight=variant.weight,
            environment_digest=variant.environment_digest,
            mirror_percent=variant.mirror_percent,
            serving=plan_codec.decode_serving(variant.serving),
            header_match=plan_codec.decode_header_match(variant.header_match)
            if variant.HasField("header_match")
            else None,
        )
        for variant in message.variants
    )
    assignment = Assignment(message.generation, variants, message.trace_parent)
    return DeploymentName.parse(message.deployment), assignment


def _encode_report(name: DeploymentName, report: Report) -> assignment_pb2.AssignmentStatus:
    return assignment_pb2.AssignmentStatus(
        deployment=str(name),
        generation=report.generation,
        weights_applied=report.weights_applied,
        variants=[_encode_variant(variant) for variant in report.variants],
    )


def _encode_variant(variant: VariantReport) -> assignment_pb2.VariantStatus:
    failure = None
    if variant.failure is not None:
        # What matters most, the model server's last lines, is at the end.
        message = variant.failure.message[-4_000:]
        failure = failure_pb2.Failure(reason=variant.failure.reason, message=message)
    return assignment_pb2.VariantStatus(
        revision=variant.revision,
        state=deployment_pb2.VariantState.Value(f"VARIANT_STATE_{variant.state}"),
        failure=failure,
        ready_replica_count=variant.ready_replica_count,
        restart_count=variant.restart_count,
        traffic=plan_codec.encode_traffic(variant.traffic),
        wanted_replica_count=variant.wanted_replica_count,
        scaling=variant.scaling,
    )
