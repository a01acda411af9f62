"""The artifact service as the registry needs it: holding a version's bytes, and letting go."""

from __future__ import annotations

from typing import Protocol

from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2, artifact_service_pb2_grpc

from services.common.names import ProjectName, project_of
from services.common.peers import Peer


class Holds(Protocol):
    """Takes holds on artifacts."""

    async def hold(self, artifact: str, holder: str, *, credential: str, seconds: float) -> None:
        """Hold an artifact for a holder; doing it again changes nothing."""
        ...

    async def release_holder(self, holder: str, *, credential: str, seconds: float) -> None:
        """Give back all that a resource holds; doing it again changes nothing."""
        ...


class RemoteHolds:
    """Takes holds at the artifact service, with the caller's own credential."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def hold(self, artifact: str, holder: str, *, credential: str, seconds: float) -> None:
        """Hold an artifact.

        Raises:
            ServiceError: BYTES_MISSING, SERVICE_UNAVAILABLE, RIGHT_MISSING.
        """
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        request = artifact_service_pb2.HoldArtifactRequest(
            hold=artifact_pb2.Hold(artifact=artifact, holder=holder)
        )
        await self._peer.call(stub.HoldArtifact, request, credential=credential, seconds=seconds)

    async def release_holder(self, holder: str, *, credential: str, seconds: float) -> None:
        """Give back all that a resource holds.

        Raises:
            ServiceError: SERVICE_UNAVAILABLE, RIGHT_MISSING.
        """
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        project = ProjectName(project_of(holder, "holder"))
        request = artifact_service_pb2.ReleaseHolderRequest(parent=str(project), holder=holder)
        await self._peer.call(stub.ReleaseHolder, request, credential=credential, seconds=seconds)
