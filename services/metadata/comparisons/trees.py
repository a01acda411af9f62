"""The artifact service as comparisons need it: what is in a tree, and some of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from modelyard.artifact.v1 import artifact_service_pb2 as pb
from modelyard.artifact.v1 import artifact_service_pb2_grpc

from services.common import telemetry
from services.common.rpc import status
from services.common.rpc.peers import Peer

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree."""

    sha256: str
    size: int
    executable: bool


class Trees(Protocol):
    """Reads trees of files."""

    async def files(
        self, artifact: str, prefix: str, *, credential: str, seconds: float, limit: int
    ) -> Mapping[str, Entry] | None:
        """Return a tree's files whose paths begin with a prefix; None for more than `limit`."""
        ...

    async def read(self, artifact: str, path: str, *, credential: str, seconds: float) -> bytes:
        """Return a file's bytes."""
        ...


class RemoteTrees:
    """Reads trees at the artifact service, with the caller's own credential."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def files(
        self, artifact: str, prefix: str, *, credential: str, seconds: float, limit: int
    ) -> Mapping[str, Entry] | None:
        """Return a tree's files whose paths begin with a prefix; None for more than `limit`.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, SERVICE_UNAVAILABLE, RIGHT_MISSING.
        """
        request = pb.ListFilesRequest(artifact=artifact, path_prefix=prefix, page_size=PAGE)
        method = self._stub().ListFiles
        found: dict[str, Entry] = {}
        while len(found) <= limit:
            answer = await self._peer.call(method, request, credential=credential, seconds=seconds)
            for file in answer.files:
                found[file.path] = Entry(file.sha256, file.size_bytes, file.executable)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token
        return None

    async def read(self, artifact: str, path: str, *, credential: str, seconds: float) -> bytes:
        """Return a file's bytes.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, SERVICE_UNAVAILABLE, CORRUPT_BYTES.
        """
        metadata = telemetry.inject([("authorization", f"Bearer {credential}")])
        request = pb.ReadFileRequest(artifact=artifact, path=path)
        data = bytearray()
        try:
            async for message in self._stub().ReadFile(request, metadata=metadata, timeout=seconds):
                data += message.data
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error
        return bytes(data)

    def _stub(self) -> Any:
        return self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)
