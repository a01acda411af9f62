"""The gRPC edge of the artifact service: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from modelyard._transfers.wire import read_chunks, write_file_data, write_files
from modelyard.artifact.v1 import artifact_service_pb2 as pb
from modelyard.artifact.v1 import artifact_service_pb2_grpc

from services.artifact import codec
from services.artifact.batches import Batches
from services.artifact.committing import FileCommitter
from services.artifact.depot import Depot
from services.artifact.holds import Holds
from services.artifact.uploads import Uploads
from services.common.auth import current_call
from services.common.listing import pagination
from services.common.names import ArtifactName, ProjectName
from services.common.rpc.pipeline import read_by, steady

Context = grpc.aio.ServicerContext[Any, Any]


class ArtifactServicer(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Serve `modelyard.artifact.v1.ArtifactService`."""

    def __init__(
        self,
        *,
        uploads: Uploads,
        committer: FileCommitter,
        depot: Depot,
        batches: Batches,
        holds: Holds,
    ) -> None:
        self._uploads = uploads
        self._committer = committer
        self._depot = depot
        self._batches = batches
        self._holds = holds

    async def FindMissing(
        self, request: pb.FindMissingRequest, context: Context
    ) -> pb.FindMissingResponse:
        """Say which files and chunks a project lacks."""
        project = ProjectName.parse(request.parent, "parent").project
        files, chunks = codec.wanted_digests(request)
        missing = await self._uploads.find_missing(
            project, files=files, chunks=chunks, caller=current_call().caller.principal
        )
        return codec.missing(missing, direct=self._uploads.direct)

    @steady
    @read_by(read_chunks)
    async def WriteChunks(
        self, requests: AsyncIterator[codec.WriteChunksRequest], context: Context
    ) -> AsyncIterator[pb.WriteChunksResponse]:
        """Store chunks."""
        async for durable in self._uploads.write_chunks(codec.chunk_messages(requests)):
            yield codec.durable(durable)

    async def CommitFiles(
        self, request: pb.CommitFilesRequest, context: Context
    ) -> pb.CommitFilesResponse:
        """Make files of chunks."""
        project = ProjectName.parse(request.parent, "parent").project
        caller = current_call().caller.principal
        await self._committer.commit(project, codec.recipes(request), caller=caller)
        return pb.CommitFilesResponse()

    async def CommitFile(
        self, requests: AsyncIterator[pb.CommitFileRequest], context: Context
    ) -> pb.CommitFileResponse:
        """Make one large file of chunks."""
        caller = current_call().caller.principal
        await self._committer.commit_parts(codec.recipe_parts(requests), caller=caller)
        return pb.CommitFileResponse()

    async def CreateArtifact(
        self, request: pb.CreateArtifactRequest, context: Context
    ) -> pb.CreateArtifactResponse:
        """Commit a tree."""
        creator = current_call().caller.principal
        artifact = await self._depot.create(codec.new_artifact(request), creator=creator)
        return pb.CreateArtifactResponse(artifact=codec.artifact(artifact))

    async def GetArtifact(
        self, request: pb.GetArtifactRequest, context: Context
    ) -> pb.GetArtifactResponse:
        """Return an artifact."""
        artifact = await self._depot.get(ArtifactName.parse(request.name))
        return pb.GetArtifactResponse(artifact=codec.artifact(artifact))

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> pb.ListFilesResponse:
        """Return a page of an artifact's files."""
        name = ArtifactName.parse(request.artifact, "artifact")
        size, query = pagination.page_size(request.page_size), codec.files_query(request)
        after = codec.after_path(request.page_token, query)
        prefix = codec.prefix(request)
        found = await self._depot.list_files(name, prefix=prefix, after=after, limit=size + 1)
        return codec.files_page(found, size=size, query=query)

    async def ReadFile(  # type: ignore[override]  # bytes go out without a copy
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse | bytes]:
        """Send a range of a file."""
        name = ArtifactName.parse(request.artifact, "artifact")
        offset, limit = codec.byte_range(request)
        entry, pieces = await self._depot.open_file(
            name, request.path, offset=offset, limit=limit, verify=not request.unverified
        )
        yield pb.ReadFileResponse(file=codec.file(entry))
        async for piece in pieces:
            yield write_file_data(piece)

    async def ReadFiles(  # type: ignore[override]  # bytes go out without a copy
        self, request: pb.ReadFilesRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Send whole small files."""
        name = ArtifactName.parse(request.artifact, "artifact")
        verify = not request.unverified
        async for found in await self._batches.open_files(name, request.paths, verify=verify):
            yield write_files((one.path, one.pieces) for one in found)

    async def ReadRecipe(
        self, request: pb.ReadRecipeRequest, context: Context
    ) -> AsyncIterator[pb.ReadRecipeResponse]:
        """Send of which chunks a file is made."""
        name = ArtifactName.parse(request.artifact, "artifact")
        entry, stored = await self._batches.recipe(name, request.path)
        for message in codec.recipe_messages(entry, stored):
            yield message

    async def HoldArtifact(
        self, request: pb.HoldArtifactRequest, context: Context
    ) -> pb.HoldArtifactResponse:
        """Hold an artifact."""
        name, holder = codec.hold_request(request.hold)
        return pb.HoldArtifactResponse(hold=codec.hold(await self._holds.hold(name, holder)))

    async def HoldArtifacts(
        self, request: pb.HoldArtifactsRequest, context: Context
    ) -> pb.HoldArtifactsResponse:
        """Hold artifacts."""
        wanted = codec.hold_requests(request)
        missing = set(await self._holds.hold_all(wanted))
        asked = zip(wanted, request.holds, strict=True)
        return pb.HoldArtifactsResponse(missing=[hold for pair, hold in asked if pair in missing])

    async def ReleaseArtifact(
        self, request: pb.ReleaseArtifactRequest, context: Context
    ) -> pb.ReleaseArtifactResponse:
        """Release a hold."""
        name, holder = codec.hold_request(request.hold)
        await self._holds.release(name, holder)
        return pb.ReleaseArtifactResponse()

    async def ListHolds(
        self, request: pb.ListHoldsRequest, context: Context
    ) -> pb.ListHoldsResponse:
        """Return a page of an artifact's holds."""
        name = ArtifactName.parse(request.artifact, "artifact")
        size, query = pagination.page_size(request.page_size), codec.holds_query(name)
        after = codec.after_holder(request.page_token, query)
        found = await self._holds.list(name, after=after, limit=size + 1)
        return codec.holds_page(found, size=size, query=query)

    async def ReleaseHolder(
        self, request: pb.ReleaseHolderRequest, context: Context
    ) -> pb.ReleaseHolderResponse:
        """Release everything that a holder holds."""
        await self._holds.release_holder(*codec.holder_request(request))
        return pb.ReleaseHolderResponse()
