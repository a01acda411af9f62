"""The gRPC edge of retention: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import retention_service_pb2 as pb
from modelyard.metadata.v1 import retention_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import ModelName
from services.metadata.retention import codec
from services.metadata.retention.keeping import Keeping

Context = grpc.aio.ServicerContext[Any, Any]


class RetentionServicer(retention_service_pb2_grpc.RetentionServiceServicer):
    """Serve `modelyard.metadata.v1.RetentionService`."""

    def __init__(self, *, keeping: Keeping) -> None:
        self._keeping = keeping

    async def SetRetention(
        self, request: pb.SetRetentionRequest, context: Context
    ) -> pb.SetRetentionResponse:
        """Set a model's retention."""
        call, wanted = current_call(), request.retention
        retention = await self._keeping.set(
            ModelName.parse(wanted.model, "retention.model"),
            codec.rules(wanted),
            etag=wanted.etag,
            setter=call.caller.principal,
            key=call.key(request),
        )
        return pb.SetRetentionResponse(retention=codec.retention(retention))

    async def GetRetention(
        self, request: pb.GetRetentionRequest, context: Context
    ) -> pb.GetRetentionResponse:
        """Return a model's retention."""
        found = await self._keeping.get(ModelName.parse(request.model, "model"))
        return pb.GetRetentionResponse(retention=codec.retention(found))

    async def DeleteRetention(
        self, request: pb.DeleteRetentionRequest, context: Context
    ) -> pb.DeleteRetentionResponse:
        """Remove a model's retention."""
        await self._keeping.remove(ModelName.parse(request.model, "model"))
        return pb.DeleteRetentionResponse()

    async def ApplyRetention(
        self, request: pb.ApplyRetentionRequest, context: Context
    ) -> pb.ApplyRetentionResponse:
        """Follow a model's retention now."""
        model = ModelName.parse(request.model, "model")
        verdicts = await self._keeping.apply(model, dry_run=request.dry_run)
        return pb.ApplyRetentionResponse(verdicts=[codec.verdict(found) for found in verdicts])
