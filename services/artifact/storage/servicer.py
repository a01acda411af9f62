"""The gRPC edge of the storage behind artifacts: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from modelyard.artifact.v1 import storage_service_pb2 as pb
from modelyard.artifact.v1 import storage_service_pb2_grpc

from services.artifact.storage import codec as storage_codec
from services.artifact.storage.scrubbing import Scrubbing
from services.artifact.storage.spaces import Spaces
from services.artifact.storage.sweeping import Sweeping
from services.common.names import ArtifactName, ProjectName

Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(storage_service_pb2_grpc.StorageServiceServicer):
    """Serve `modelyard.artifact.v1.StorageService`."""

    def __init__(self, *, sweeping: Sweeping, scrubbing: Scrubbing, spaces: Spaces) -> None:
        self._sweeping = sweeping
        self._scrubbing = scrubbing
        self._spaces = spaces

    async def VerifyArtifact(
        self, request: pb.VerifyArtifactRequest, context: Context
    ) -> AsyncIterator[pb.VerifyArtifactResponse]:
        """Read an artifact's stored bytes over."""
        async for report in self._scrubbing.verify(ArtifactName.parse(request.artifact)):
            yield storage_codec.report(report)

    async def SweepProject(
        self, request: pb.SweepProjectRequest, context: Context
    ) -> pb.SweepProjectResponse:
        """Let go of what nothing needs."""
        project = ProjectName.parse(request.parent, "parent").project
        sweep = self._sweeping.preview if request.dry_run else self._sweeping.sweep
        return storage_codec.swept(await sweep(project))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Return what a project stores."""
        project = ProjectName.parse(request.parent, "parent")
        found = await self._spaces.usage(project.project)
        return pb.GetUsageResponse(usage=storage_codec.usage(project, found))

    async def SetQuota(self, request: pb.SetQuotaRequest, context: Context) -> pb.SetQuotaResponse:
        """Limit what a project stores."""
        project = ProjectName.parse(request.parent, "parent")
        found = await self._spaces.set_quota(project.project, storage_codec.quota(request))
        return pb.SetQuotaResponse(usage=storage_codec.usage(project, found))
