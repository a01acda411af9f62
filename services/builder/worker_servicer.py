"""The gRPC edge towards workers: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from modelyard.builder.v1 import worker_service_pb2 as pb
from modelyard.builder.v1 import worker_service_pb2_grpc

from services.builder import codec, worker_codec
from services.builder.ledger import Ledger
from services.builder.provisions import Provisions
from services.builder.registrar import Registrar
from services.builder.scheduler import Scheduler
from services.common.auth import current_call
from services.common.rpc.draining import endless
from services.common.rpc.pipeline import without_turn

Context = grpc.aio.ServicerContext[Any, Any]


class WorkerServicer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Serve `modelyard.builder.v1.WorkerService`."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        ledger: Ledger,
        registrar: Registrar,
        provisions: Provisions,
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._registrar = registrar
        self._provisions = provisions

    @without_turn
    async def LeaseBuild(
        self, request: pb.LeaseBuildRequest, context: Context
    ) -> pb.LeaseBuildResponse:
        """Give a build to a worker, if there is one in time."""
        ask, wait = worker_codec.ask(request), worker_codec.wait_seconds(request.wait)
        build = await self._scheduler.lease(ask, wait=wait, drain=current_call().drain)
        if build is None:
            return pb.LeaseBuildResponse()
        expire_time, seconds = self._scheduler.expire_time(), self._scheduler.lease_seconds
        return worker_codec.leased(build, expire_time=expire_time, seconds=seconds)

    async def ExtendLease(
        self, request: pb.ExtendLeaseRequest, context: Context
    ) -> pb.ExtendLeaseResponse:
        """Take a worker's sign of life."""
        lease, wait = worker_codec.lease(request.lease), worker_codec.wait_seconds(request.wait)
        found = await self._scheduler.extend(lease, wait=wait, drain=current_call().drain)
        return pb.ExtendLeaseResponse(
            expire_time=codec.timestamp(found.expire_time),
            cancel=found.cancel,
            delegation=found.delegation,
        )

    async def GetBuildSecrets(
        self, request: pb.GetBuildSecretsRequest, context: Context
    ) -> pb.GetBuildSecretsResponse:
        """Return the values of the secrets that a build names."""
        values = await self._provisions.secrets(worker_codec.lease(request.lease))
        return worker_codec.secrets(values)

    async def ReportSource(
        self, request: pb.ReportSourceRequest, context: Context
    ) -> pb.ReportSourceResponse:
        """Keep what was fetched from a git source."""
        lease = worker_codec.lease(request.lease)
        fetched = worker_codec.fetched(request, lease.build.project)
        await self._provisions.keep_source(lease, fetched)
        return pb.ReportSourceResponse()

    async def ReportPhase(
        self, request: pb.ReportPhaseRequest, context: Context
    ) -> pb.ReportPhaseResponse:
        """Start or end a phase."""
        lease = worker_codec.lease(request.lease)
        await self._scheduler.report_phase(lease, worker_codec.reported_phase(request))
        return pb.ReportPhaseResponse()

    @endless
    async def ReportEvents(
        self, requests: AsyncIterator[pb.ReportEventsRequest], context: Context
    ) -> AsyncIterator[pb.ReportEventsResponse]:
        """Keep batches of events."""
        async for request in requests:
            lease, batch = worker_codec.lease(request.lease), worker_codec.event_batch(request)
            durable = await self._ledger.append(lease, request.sequence, batch)
            yield pb.ReportEventsResponse(acknowledged_sequence=durable)

    async def RegisterBuild(
        self, request: pb.RegisterBuildRequest, context: Context
    ) -> pb.RegisterBuildResponse:
        """Register the version of an attempt that won."""
        lease = worker_codec.lease(request.lease)
        winner = worker_codec.winner(request, lease.build.project)
        version = await self._registrar.register(lease, winner)
        return pb.RegisterBuildResponse(version=version)

    async def EndAttempt(
        self, request: pb.EndAttemptRequest, context: Context
    ) -> pb.EndAttemptResponse:
        """End an attempt without a version."""
        failure = worker_codec.failure(request.failure) if request.HasField("failure") else None
        await self._scheduler.end_attempt(worker_codec.lease(request.lease), failure)
        return pb.EndAttemptResponse()
