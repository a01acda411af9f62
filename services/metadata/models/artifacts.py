"""The artifact service as the registry needs it: holding a version's bytes, and letting go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2, artifact_service_pb2_grpc

from services.common.names import ArtifactName, ProjectName, project_of
from services.common.rpc.peers import Peer
from services.common.rpc.status import unanswered
from services.metadata.models.domain import bytes_missing
from services.metadata.models.gathering import Gathering

HOLDS_PER_CALL = 1_000


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
        # A call costs more than all else a hold needs: one carries all that wait.
        self._holding = Gathering(self._hold_all, most=HOLDS_PER_CALL)

    async def hold(self, artifact: str, holder: str, *, credential: str, seconds: float) -> None:
        """Hold an artifact.

        Raises:
            ServiceError: BYTES_MISSING, SERVICE_UNAVAILABLE, RIGHT_MISSING.
        """
        key = (credential, str(ProjectName(project_of(holder, "holder"))))
        hold = artifact_pb2.Hold(artifact=artifact, holder=holder)
        try:
            async with asyncio.timeout(seconds):
                is_held = await self._holding.ask(key, hold)
        except TimeoutError:
            raise unanswered() from None
        if not is_held:
            raise bytes_missing(ArtifactName.parse(artifact).artifact)

    async def _hold_all(
        self, key: tuple[str, str], holds: Sequence[artifact_pb2.Hold]
    ) -> list[bool]:
        """Hold artifacts of one project with one credential; say which are held."""
        credential, parent = key
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        request = artifact_service_pb2.HoldArtifactsRequest(parent=parent, holds=holds)
        answer = await self._peer.call(stub.HoldArtifacts, request, credential=credential)
        missing = {(hold.artifact, hold.holder) for hold in answer.missing}
        return [(hold.artifact, hold.holder) not in missing for hold in holds]

    async def release_holder(self, holder: str, *, credential: str, seconds: float) -> None:
        """Give back all that a resource holds.

        Raises:
            ServiceError: SERVICE_UNAVAILABLE, RIGHT_MISSING.
        """
        stub = self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
        project = ProjectName(project_of(holder, "holder"))
        request = artifact_service_pb2.ReleaseHolderRequest(parent=str(project), holder=holder)
        await self._peer.call(stub.ReleaseHolder, request, credential=credential, seconds=seconds)
