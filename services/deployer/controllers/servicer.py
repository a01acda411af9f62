"""ControllerService's edge: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from modelyard.deployer.v1 import controller_service_pb2 as pb
from modelyard.deployer.v1 import controller_service_pb2_grpc

from services.common.listing.pagination import decode_cursor, encode_cursor
from services.common.names import ArtifactName, DeploymentName, EnvironmentName
from services.common.rpc.draining import endless
from services.deployer import codec
from services.deployer.controllers.assignments import Assignments, Batch
from services.deployer.controllers.sampling import Samples
from services.deployer.timestamps import timestamp


class ControllerServicer(controller_service_pb2_grpc.ControllerServiceServicer):
    """Serves ControllerService."""

    def __init__(self, assignments: Assignments, samples: Samples) -> None:
        self._assignments = assignments
        self._samples = samples

    @endless
    async def WatchAssignments(  # noqa: D102 - documented in the proto, as each RPC
        self, request: pb.WatchAssignmentsRequest, context: Any
    ) -> AsyncIterator[pb.WatchAssignmentsResponse]:
        environment = EnvironmentName.parse(request.environment, "environment", wildcard=True)
        stream = f"assignments {environment}"
        (after,) = decode_cursor(request.cursor, stream, tuple[int]) or (None,)
        controller = codec.check_controller(request.controller)
        async for batch in self._assignments.watch(environment, after, controller=controller):
            yield _encode_batch(batch, encode_cursor(stream, (batch.sequence,)))

    async def ReportStatus(  # noqa: D102
        self, request: pb.ReportStatusRequest, context: Any
    ) -> pb.ReportStatusResponse:
        controller = codec.check_controller(request.controller)
        name = DeploymentName.parse(request.status.deployment, "status.deployment")
        report = codec.decode_report(request.status)
        address = codec.check_address(request.address)
        await self._assignments.report(name, report, address=address, controller=controller)
        return pb.ReportStatusResponse()

    async def CreateGrant(  # noqa: D102
        self, request: pb.CreateGrantRequest, context: Any
    ) -> pb.CreateGrantResponse:
        name = DeploymentName.parse(request.deployment, "deployment")
        artifact = ArtifactName.parse(request.artifact, "artifact")
        grant = await self._assignments.grant(name, artifact)
        expire_time = timestamp(grant.expire_time)
        return pb.CreateGrantResponse(grant=grant.credential, expire_time=expire_time)

    async def RecordSample(  # noqa: D102
        self, request: pb.RecordSampleRequest, context: Any
    ) -> pb.RecordSampleResponse:
        name = DeploymentName.parse(request.deployment, "deployment")
        controller = codec.check_controller(request.controller)
        sample = codec.decode_sample(request.sample)
        version = await self._samples.record(name, request.revision, sample, controller=controller)
        return pb.RecordSampleResponse(dataset_version=version)


def _encode_batch(batch: Batch, cursor: str) -> pb.WatchAssignmentsResponse:
    assignments = [codec.encode_assignment(name, assigned) for name, assigned in batch.assigned]
    return pb.WatchAssignmentsResponse(
        assignments=assignments, cursor=cursor, complete=batch.complete
    )
