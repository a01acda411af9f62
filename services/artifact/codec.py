"""Between the service's messages and its domain: pure functions, and what a request must obey."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

from google.protobuf import timestamp_pb2
from modelyard._transfers import wire as _wire
from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2

from services.artifact.domain import (
    CHUNK_BYTES,
    CHUNKS_PER_CALL,
    CHUNKS_PER_FILE,
    CHUNKS_PER_MESSAGE,
    CHUNKS_PER_RECIPE_MESSAGE,
    DIGESTS_PER_CALL,
    HOLDER_CHARACTERS,
    HOLDS_PER_CALL,
    MESSAGE_BYTES,
    PATH_BYTES,
    RECIPES_PER_CALL,
    Artifact,
    Chunk,
    FileRecipe,
    Hold,
    RecipePart,
    StoredFile,
    check_digests,
    limit_exceeded,
)
from services.artifact.manifest import ManifestEntry
from services.artifact.uploads import ChunkMessage, Durable, Missing
from services.common.errors import invalid_field
from services.common.listing import pagination
from services.common.names import ArtifactName, ProjectName, invalid_name

WriteChunksRequest: TypeAlias = "artifact_service_pb2.WriteChunksRequest | _wire.Chunks"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HOLDER = re.compile(r"[a-z0-9][a-z0-9/_.-]*")


def wanted_digests(
    request: artifact_service_pb2.FindMissingRequest,
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Read the digests of files and of chunks that are asked for."""
    if len(request.file_digests) + len(request.chunk_digests) > DIGESTS_PER_CALL:
        raise limit_exceeded("digests_per_call", DIGESTS_PER_CALL)
    return (
        check_digests(request.file_digests, "file_digests"),
        check_digests(request.chunk_digests, "chunk_digests"),
    )


def missing(found: Missing, *, direct: bool) -> artifact_service_pb2.FindMissingResponse:
    """Write what is missing."""
    return artifact_service_pb2.FindMissingResponse(
        missing_file_digests=found.files,
        missing_chunk_digests=found.chunks,
        lease_expire_time=timestamp(found.lease_expire_time),
        direct=direct,
    )


async def chunk_messages(
    requests: AsyncIterator[WriteChunksRequest],
) -> AsyncIterator[ChunkMessage]:
    """Read a stream of chunks; its project is said once, and cannot change."""
    parent = ""
    async for request in requests:
        parent = parent or request.parent
        project = ProjectName.parse(parent, "parent").project
        if request.parent not in {"", parent}:
            raise invalid_field("parent", "must stay the same in a stream")
        yield ChunkMessage(project, _chunks(request.chunks))


def _chunks(messages: Sequence[artifact_service_pb2.Chunk | _wire.Chunk]) -> tuple[Chunk, ...]:
    if len(messages) > CHUNKS_PER_MESSAGE:
        raise limit_exceeded("chunks_per_message", CHUNKS_PER_MESSAGE)
    chunks = tuple(Chunk(message.digest, message.data) for message in messages)
    check_digests([chunk.digest for chunk in chunks if chunk.digest], "chunks.digest")
    if not all(chunk.data for chunk in chunks):
        raise invalid_field("chunks.data", "must not be empty")
    if any(len(chunk.data) > CHUNK_BYTES for chunk in chunks):
        raise limit_exceeded("chunk_bytes", CHUNK_BYTES)
    if sum(len(chunk.data) for chunk in chunks) > MESSAGE_BYTES:
        raise limit_exceeded("message_bytes", MESSAGE_BYTES)
    return chunks


def durable(found: Durable) -> artifact_service_pb2.WriteChunksResponse:
    """Write which chunks of a stream are durable."""
    return artifact_service_pb2.WriteChunksResponse(
        durable_chunk_count=found.count, chunk_digests=found.found
    )


def recipes(request: artifact_service_pb2.CommitFilesRequest) -> tuple[FileRecipe, ...]:
    """Read which chunks make which files."""
    if len(request.recipes) > RECIPES_PER_CALL:
        raise limit_exceeded("recipes_per_call", RECIPES_PER_CALL)
    if sum(len(recipe.chunk_digests) for recipe in request.recipes) > CHUNKS_PER_CALL:
        raise limit_exceeded("chunks_per_call", CHUNKS_PER_CALL)
    check_digests([recipe.digest for recipe in request.recipes], "recipes.digest")
    return tuple(
        FileRecipe(
            recipe.digest,
            recipe.size_bytes,
            check_digests(recipe.chunk_digests, "recipes.chunk_digests"),
        )
        for recipe in request.recipes
    )


async def recipe_parts(
    requests: AsyncIterator[artifact_service_pb2.CommitFileRequest],
) -> AsyncIterator[RecipePart]:
    """Read of which chunks one file is made, part by part, and in which project."""
    parent, count = "", 0
    async for request in requests:
        parent = parent or request.parent
        count += len(request.chunk_digests)
        if count > CHUNKS_PER_FILE:
            raise limit_exceeded("chunks_per_file", CHUNKS_PER_FILE)
        chunks = check_digests(request.chunk_digests, "chunk_digests")
        project = ProjectName.parse(parent, "parent").project
        yield RecipePart(project, chunks, request.digest, request.size_bytes)


def recipe_messages(
    entry: ManifestEntry, stored: StoredFile
) -> Iterator[artifact_service_pb2.ReadRecipeResponse]:
    """Write a file and of which chunks it is made."""
    yield artifact_service_pb2.ReadRecipeResponse(file=file(entry))
    for at in range(0, len(stored.chunks), CHUNKS_PER_RECIPE_MESSAGE):
        yield artifact_service_pb2.ReadRecipeResponse(
            chunk_digests=stored.chunks[at : at + CHUNKS_PER_RECIPE_MESSAGE],
            chunk_sizes=stored.lengths[at : at + CHUNKS_PER_RECIPE_MESSAGE],
        )


def new_artifact(request: artifact_service_pb2.CreateArtifactRequest) -> ArtifactName:
    """Read which artifact is to be committed."""
    project = ProjectName.parse(request.parent, "parent").project
    if not _DIGEST.fullmatch(request.digest):
        raise invalid_field("digest", "must be 64 lowercase hex digits")
    return ArtifactName(project, request.digest)


def artifact(found: Artifact) -> artifact_pb2.Artifact:
    """Write an artifact."""
    return artifact_pb2.Artifact(
        name=str(found.name),
        file_count=found.file_count,
        size_bytes=found.size,
        creator=found.creator,
        create_time=timestamp(found.create_time),
    )


def prefix(request: artifact_service_pb2.ListFilesRequest) -> str:
    """Read which paths are to be listed."""
    if len(request.path_prefix.encode()) > PATH_BYTES:
        raise invalid_field("path_prefix", f"must have at most {PATH_BYTES} bytes")
    return request.path_prefix


def files_query(request: artifact_service_pb2.ListFilesRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"files\n{request.artifact}\n{request.path_prefix}"


def after_path(token: str, query: str) -> str | None:
    """Read after which path a page begins."""
    key = pagination.decode_token(token, query, tuple[str])
    return None if key is None else key[0]


def files_page(
    found: Sequence[ManifestEntry], *, size: int, query: str
) -> artifact_service_pb2.ListFilesResponse:
    """Write a page of files, given one more than it holds when there are more."""
    page = found[:size]
    more = len(found) > size
    return artifact_service_pb2.ListFilesResponse(
        files=[file(entry) for entry in page],
        next_page_token=pagination.encode_token(query, [page[-1].path]) if more else "",
    )


def file(entry: ManifestEntry) -> artifact_pb2.File:
    """Write a file of an artifact."""
    return artifact_pb2.File(
        path=entry.path,
        executable=entry.executable,
        size_bytes=entry.size,
        sha256=entry.sha256,
    )


def byte_range(request: artifact_service_pb2.ReadFileRequest) -> tuple[int, int | None]:
    """Read the first byte wanted and how many, None for all that follow."""
    if request.offset_bytes < 0:
        raise invalid_field("offset_bytes", "must not be negative")
    if request.limit_bytes < 0:
        raise invalid_field("limit_bytes", "must not be negative")
    return request.offset_bytes, request.limit_bytes or None


def hold_request(message: artifact_pb2.Hold) -> tuple[ArtifactName, str]:
    """Read an artifact and its holder, a resource of the same project."""
    name = ArtifactName.parse(message.artifact, "hold.artifact")
    return name, _holder(message.holder, ProjectName(name.project), "hold.holder")


def hold_requests(
    request: artifact_service_pb2.HoldArtifactsRequest,
) -> list[tuple[ArtifactName, str]]:
    """Read artifacts of one project and their holders."""
    if len(request.holds) > HOLDS_PER_CALL:
        raise limit_exceeded("holds_per_call", HOLDS_PER_CALL)
    parent = ProjectName.parse(request.parent, "parent")
    wanted = [hold_request(message) for message in request.holds]
    if any(name.project != parent.project for name, _ in wanted):
        raise invalid_name("holds", "must be of the project `parent`")
    return wanted


def holder_request(
    request: artifact_service_pb2.ReleaseHolderRequest,
) -> tuple[ProjectName, str]:
    """Read a project and a holder, a resource of it."""
    project = ProjectName.parse(request.parent, "parent")
    return project, _holder(request.holder, project, "holder")


def _holder(holder: str, project: ProjectName, field: str) -> str:
    own = holder.startswith(f"{project}/")
    if not own or len(holder) > HOLDER_CHARACTERS or not _HOLDER.fullmatch(holder):
        raise invalid_name(field, "must be the name of a resource of the same project")
    return holder


def hold(found: Hold) -> artifact_pb2.Hold:
    """Write a hold."""
    return artifact_pb2.Hold(
        artifact=str(found.artifact),
        holder=found.holder,
        create_time=timestamp(found.create_time),
    )


def holds_query(name: ArtifactName) -> str:
    """Say what a page token of an artifact's holds belongs to."""
    return f"holds\n{name}"


def after_holder(token: str, query: str) -> str:
    """Read after which holder a page begins."""
    key = pagination.decode_token(token, query, tuple[str])
    return "" if key is None else key[0]


def holds_page(
    found: Sequence[Hold], *, size: int, query: str
) -> artifact_service_pb2.ListHoldsResponse:
    """Write a page of holds, given one more than it holds when there are more."""
    page = found[:size]
    more = len(found) > size
    return artifact_service_pb2.ListHoldsResponse(
        holds=[hold(one) for one in page],
        next_page_token=pagination.encode_token(query, [page[-1].holder]) if more else "",
    )


def timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    """Write a moment."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message
