"""The gRPC edge of the queue: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.builder.v1 import queue_service_pb2 as pb
from modelyard.builder.v1 import queue_service_pb2_grpc

from services.builder.queue import codec
from services.builder.queue.queueing import Queue
from services.common.names import check_id

Context = grpc.aio.ServicerContext[Any, Any]


class QueueServicer(queue_service_pb2_grpc.QueueServiceServicer):
    """Serve `modelyard.builder.v1.QueueService`."""

    def __init__(self, *, queue: Queue) -> None:
        self._queue = queue

    async def GetBuildLimits(
        self, request: pb.GetBuildLimitsRequest, context: Context
    ) -> pb.GetBuildLimitsResponse:
        """Return limits and how it stands with them."""
        found = await self._queue.standing(codec.scope(request.resource, "resource"))
        return pb.GetBuildLimitsResponse(build_limits=codec.limits(found))

    async def SetBuildLimits(
        self, request: pb.SetBuildLimitsRequest, context: Context
    ) -> pb.SetBuildLimitsResponse:
        """Set limits."""
        scope = codec.scope(request.build_limits.resource, "build_limits.resource")
        found = await self._queue.set_limit(scope, codec.maximum(request.build_limits))
        return pb.SetBuildLimitsResponse(build_limits=codec.limits(found))

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        """List workers."""
        pool = check_id(request.pool, "pool") if request.pool else ""
        found = await self._queue.workers(pool=pool, lost=request.include_lost)
        return pb.ListWorkersResponse(workers=[codec.worker(worker) for worker in found])
