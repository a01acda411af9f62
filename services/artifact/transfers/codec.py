"""Between messages and domain: direct transfers."""

from __future__ import annotations

import re

from modelyard.artifact.v1 import transfer_service_pb2 as pb

from services.artifact.blobs import Grant
from services.artifact.codec import timestamp
from services.artifact.domain import (
    CHUNK_BYTES,
    CHUNKS_PER_PACK,
    PACK_BYTES,
    check_digests,
    limit_exceeded,
)
from services.artifact.transfers.granting import Placed
from services.common.errors import invalid_field

FILES_PER_GRANT = 1_000
_PACK = re.compile(r"[0-9a-f]{32}")


def announced(request: pb.GrantPackRequest) -> tuple[int, bytes]:
    """Read how large a pack is going to be, and its SHA-256."""
    if not 0 < request.size_bytes <= PACK_BYTES:
        raise invalid_field("size_bytes", f"must be 1 to {PACK_BYTES}")
    (sha256,) = check_digests([request.sha256], "sha256")
    return request.size_bytes, sha256


def pack_grant(granted: tuple[str, Grant] | None) -> pb.GrantPackResponse:
    """Write the grant of a pack; nothing when there is none."""
    if granted is None:
        return pb.GrantPackResponse()
    name, found = granted
    return pb.GrantPackResponse(pack=name, grant=grant(found))


def pack(request: pb.AddPackRequest) -> str:
    """Read which pack was put, or refuse what no pack is called."""
    if not _PACK.fullmatch(request.pack):
        raise invalid_field("pack", "must be what GrantPack answered")
    return request.pack


def chunks(request: pb.AddPackRequest) -> list[tuple[bytes, int]]:
    """Read which chunks lie in a pack."""
    if len(request.chunks) > CHUNKS_PER_PACK:
        raise limit_exceeded("chunks_per_pack", CHUNKS_PER_PACK)
    digests = check_digests([chunk.digest for chunk in request.chunks], "chunks.digest")
    if len(set(digests)) < len(digests):
        raise invalid_field("chunks.digest", "must not be there twice")
    if any(not 0 < chunk.length_bytes <= CHUNK_BYTES for chunk in request.chunks):
        raise invalid_field("chunks.length_bytes", f"must be 1 to {CHUNK_BYTES}")
    return [(chunk.digest, chunk.length_bytes) for chunk in request.chunks]


def wanted(request: pb.GrantReadsRequest) -> tuple[bytes, ...]:
    """Read which files are wanted."""
    if not 0 < len(request.file_digests) <= FILES_PER_GRANT:
        raise invalid_field("file_digests", f"must be 1 to {FILES_PER_GRANT}")
    return check_digests(request.file_digests, "file_digests")


def places(placed: Placed | None) -> pb.GrantReadsResponse:
    """Write where files lie; nothing when they go through this service."""
    answer = pb.GrantReadsResponse()
    if placed is None:
        return answer
    numbers = {pack: number for number, pack in enumerate(placed.grants)}
    answer.grants.extend(grant(found) for found in placed.grants.values())
    for digest, refs in placed.files:
        file = answer.files.add(digest=digest)
        for ref in refs:
            file.chunks.add(
                digest=ref.digest,
                length_bytes=ref.length,
                grant_index=numbers[ref.pack],
                offset_bytes=ref.offset,
            )
    return answer


def grant(found: Grant) -> pb.Grant:
    """Write a grant."""
    return pb.Grant(
        method=found.method,
        url=found.url,
        headers=found.headers,
        expire_time=timestamp(found.expire_time),
    )
