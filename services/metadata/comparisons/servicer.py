"""The gRPC edge of comparisons: check, one call, encode."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from modelyard.metadata.v1 import comparison_service_pb2 as pb
from modelyard.metadata.v1 import comparison_service_pb2_grpc

from services.common.auth import current_call
from services.common.rpc.peers import remaining
from services.metadata.comparisons import codec
from services.metadata.comparisons.comparing import Comparing

Context = grpc.aio.ServicerContext[Any, Any]


class ComparisonServicer(comparison_service_pb2_grpc.ComparisonServiceServicer):
    """Serve `modelyard.metadata.v1.ComparisonService`."""

    def __init__(self, *, comparing: Comparing) -> None:
        self._comparing = comparing

    async def Compare(self, request: pb.CompareRequest, context: Context) -> pb.CompareResponse:
        """Put runs, versions and builds side by side."""
        comparison = await self._comparing.compare(
            codec.compared(request),
            with_code=not request.without_code,
            credential=current_call().caller.credential,
            seconds=remaining(),
        )
        # Large ones take a while to encode, and others wait for this thread.
        return await asyncio.to_thread(codec.response, comparison)
