"""Between messages and domain: the storage behind artifacts."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.artifact.v1 import storage_pb2, storage_service_pb2

from services.artifact.domain import Garbage, GarbageKind, Usage
from services.artifact.storage.scrubbing import Report
from services.common.errors import invalid_field
from services.common.names import ProjectName

ITEMS = 10_000
_FREED = (GarbageKind.PACK, GarbageKind.SPARSE_PACK)


def quota(request: storage_service_pb2.SetQuotaRequest) -> int | None:
    """Return how many bytes a project may store; None for no limit."""
    if request.quota_bytes < 0:
        raise invalid_field("quota_bytes", "must not be negative")
    return request.quota_bytes or None


def report(found: Report) -> storage_service_pb2.VerifyArtifactResponse:
    """Write how far a verification came, and what it found."""
    return storage_service_pb2.VerifyArtifactResponse(
        done_bytes=found.done,
        total_bytes=found.total,
        damaged_files=[
            storage_pb2.DamagedFile(
                path=finding.path, sha256=finding.digest.hex(), chunk_sha256=finding.chunk.hex()
            )
            for finding in found.findings
        ],
    )


def swept(gone: Sequence[Garbage]) -> storage_service_pb2.SweepProjectResponse:
    """Write what went, or would."""
    freed = sum(item.size for item in gone if item.kind in _FREED)
    unneeded = sum(item.size for item in gone if item.kind is GarbageKind.CHUNKS)
    return storage_service_pb2.SweepProjectResponse(
        items=[
            storage_pb2.Garbage(
                kind=storage_pb2.GarbageKind.Value(f"GARBAGE_KIND_{item.kind.value}"),
                description=item.name,
                size_bytes=item.size,
                count=item.count,
                reason=item.reason,
            )
            for item in gone[:ITEMS]
        ],
        item_count=len(gone),
        unneeded_bytes=unneeded,
        freed_bytes=freed,
    )


def usage(project: ProjectName, found: Usage) -> storage_pb2.Usage:
    """Write what a project stores."""
    return storage_pb2.Usage(
        project=str(project),
        stored_bytes=found.stored,
        needed_bytes=found.live,
        quota_bytes=found.quota or 0,
        artifact_count=found.artifacts,
        file_count=found.files,
        damaged_chunk_count=found.damaged_chunks,
    )
