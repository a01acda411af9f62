"""The gRPC edge of lineage: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import lineage_service_pb2 as pb
from modelyard.metadata.v1 import lineage_service_pb2_grpc

from services.metadata.lineage import codec
from services.metadata.lineage.tracing import Tracing
from services.metadata.lineage.usage import Usage
from services.metadata.wire import listing

Context = grpc.aio.ServicerContext[Any, Any]


class LineageServicer(lineage_service_pb2_grpc.LineageServiceServicer):
    """Serve `modelyard.metadata.v1.LineageService`."""

    def __init__(self, *, usage: Usage, tracing: Tracing) -> None:
        self._usage = usage
        self._tracing = tracing

    async def StartVersionUse(
        self, request: pb.StartVersionUseRequest, context: Context
    ) -> pb.StartVersionUseResponse:
        """Record that a deployment uses a version."""
        use = await self._usage.start(*codec.use_from(request.version_use))
        return pb.StartVersionUseResponse(version_use=codec.use(use))

    async def EndVersionUse(
        self, request: pb.EndVersionUseRequest, context: Context
    ) -> pb.EndVersionUseResponse:
        """Record that a use ended."""
        use = await self._usage.end(*codec.use_from(request.version_use))
        return pb.EndVersionUseResponse(version_use=codec.use(use))

    async def ListVersionUses(
        self, request: pb.ListVersionUsesRequest, context: Context
    ) -> pb.ListVersionUsesResponse:
        """Return a page of uses."""
        parent, current_only = codec.used(request.parent), request.current_only
        page = await self._usage.list_uses(parent, listing(request), current_only=current_only)
        return pb.ListVersionUsesResponse(
            version_uses=[codec.use(use) for use in page.items], next_page_token=page.next_token
        )

    async def GetLineage(
        self, request: pb.GetLineageRequest, context: Context
    ) -> pb.GetLineageResponse:
        """Return what something came from and what came of it."""
        found = await self._tracing.trace(
            codec.start(request.name),
            codec.direction(request),
            past=request.include_past,
            limit=codec.max_nodes(request),
        )
        return codec.graph(found)
