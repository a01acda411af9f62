"""The gRPC edge of direct transfers: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.artifact.v1 import transfer_service_pb2 as pb
from modelyard.artifact.v1 import transfer_service_pb2_grpc

from services.artifact.transfers import codec as transfer_codec
from services.artifact.transfers.granting import Granting
from services.common.auth import current_call
from services.common.names import ArtifactName, ProjectName

Context = grpc.aio.ServicerContext[Any, Any]


class TransferServicer(transfer_service_pb2_grpc.TransferServiceServicer):
    """Serve `modelyard.artifact.v1.TransferService`."""

    def __init__(self, *, granting: Granting) -> None:
        self._granting = granting

    async def GrantPack(
        self, request: pb.GrantPackRequest, context: Context
    ) -> pb.GrantPackResponse:
        """Grant the putting of a pack."""
        project = ProjectName.parse(request.parent, "parent").project
        size, sha256 = transfer_codec.announced(request)
        sender = current_call().caller.principal
        granted = await self._granting.grant_pack(project, size=size, sha256=sha256, sender=sender)
        return transfer_codec.pack_grant(granted)

    async def AddPack(self, request: pb.AddPackRequest, context: Context) -> pb.AddPackResponse:
        """Take note of a pack that was put."""
        project = ProjectName.parse(request.parent, "parent").project
        chunks, sender = transfer_codec.chunks(request), current_call().caller.principal
        pack = transfer_codec.pack(request)
        await self._granting.add_pack(project, pack, chunks, sender=sender)
        return pb.AddPackResponse()

    async def GrantReads(
        self, request: pb.GrantReadsRequest, context: Context
    ) -> pb.GrantReadsResponse:
        """Say where files lie and grant reading there."""
        name = ArtifactName.parse(request.artifact, "artifact")
        placed = await self._granting.grant_reads(name, transfer_codec.wanted(request))
        return transfer_codec.places(placed)
