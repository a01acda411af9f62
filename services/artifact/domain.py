"""What the store is made of, its published limits, and the errors that are its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.common.errors import Reason, ServiceError, invalid_field
from services.common.names import ArtifactName

DIGEST_BYTES = hashlib.sha256().digest_size
CHUNK_BYTES = 1024 * 1024
MESSAGE_BYTES = 1024 * 1024
PACK_BYTES = 64 * 1024 * 1024
CHUNKS_PER_PACK = 16_384
SPAN_BYTES = 4 * 1024 * 1024
DIGESTS_PER_CALL = 4_096
CHUNKS_PER_MESSAGE = 4_096
RECIPES_PER_CALL = 1_000
CHUNKS_PER_CALL = 100_000
CHUNKS_PER_FILE = 400_000
FILES_PER_READ = 1_000
CHUNKS_PER_RECIPE_MESSAGE = 10_000
MANIFEST_BYTES = 64 * 1024 * 1024
FILES_PER_ARTIFACT = 200_000
PATH_BYTES = 1_024
PART_BYTES = 255
HOLDER_CHARACTERS = 512
HOLDS_PER_CALL = 1_000


@dataclass(frozen=True, slots=True)
class Lease:
    """How long what is not referred to yet is kept, from when it was last asked for."""

    duration: timedelta

    def promised(self, now: datetime) -> datetime:
        """Return until when a caller may rely on it."""
        return now + self.duration

    def granted(self, now: datetime) -> datetime:
        """Return until when it lasts: a little longer, so that asking again soon writes nothing."""
        return now + self.duration * 1.25


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a file, as it is sent."""

    digest: bytes
    """Its SHA-256; empty when its sender leaves that to us."""
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """Where a stored chunk lies: a range of a pack."""

    digest: bytes
    pack: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A finished pack and the chunks in it."""

    pack: str
    size: int
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True, slots=True)
class FileRecipe:
    """Which chunks, in order, make a file."""

    digest: bytes
    size: int
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecipePart:
    """The next chunks of a file of a project; with the last ones come its digest and size."""

    project: str
    chunks: tuple[bytes, ...]
    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A committed file: its recipe and the lengths of its chunks."""

    digest: bytes
    size: int
    chunks: tuple[bytes, ...]
    lengths: tuple[int, ...]

    def pack_chunks(self) -> bytes:
        """Return the chunk digests as one blob of 32 bytes each."""
        return b"".join(self.chunks)

    def pack_lengths(self) -> bytes:
        """Return the chunk lengths as one blob of unsigned 32-bit little-endian numbers."""
        return b"".join(length.to_bytes(4, "little") for length in self.lengths)

    @staticmethod
    def unpack(digest: bytes, size: int, chunks: bytes, lengths: bytes) -> StoredFile:
        """Read a file back from its blobs."""
        return StoredFile(
            digest,
            size,
            tuple(split_digests(chunks)),
            tuple(
                int.from_bytes(lengths[start : start + 4], "little")
                for start in range(0, len(lengths), 4)
            ),
        )


def split_digests(packed: bytes) -> list[bytes]:
    """Return the digests that lie one after the other in a blob."""
    return [packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed tree of files."""

    name: ArtifactName
    file_count: int
    size: int
    creator: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """A named reference that keeps an artifact's bytes."""

    artifact: ArtifactName
    holder: str
    create_time: datetime


class GarbageKind(StrEnum):
    """What sort of thing goes."""

    ARTIFACT = "ARTIFACT"
    FILE = "FILE"
    CHUNKS = "CHUNKS"
    PACK = "PACK"
    SPARSE_PACK = "SPARSE_PACK"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that nothing needs any more."""

    kind: GarbageKind
    name: str
    size: int
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project stores; bytes are those of the storage, each counted once."""

    stored: int
    live: int
    quota: int | None
    artifacts: int
    files: int
    damaged_chunks: int


def check_digests(digests: Sequence[bytes], field: str) -> tuple[bytes, ...]:
    """Return digests, each of 32 bytes, or refuse them with INVALID_FIELD."""
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        raise invalid_field(field, f"must hold SHA-256 digests of {DIGEST_BYTES} bytes")
    return tuple(digests)


def limit_exceeded(limit: str, maximum: int) -> ServiceError:
    """Say that a published limit was passed."""
    return ServiceError(
        Reason.LIMIT_EXCEEDED,
        f"more than {maximum} {limit.replace('_', ' ')}",
        limit=limit,
        maximum=str(maximum),
    )


def quota_exceeded(project: str, maximum: int) -> ServiceError:
    """Say that a project has no room left."""
    return ServiceError(
        Reason.LIMIT_EXCEEDED,
        f"the quota of projects/{project}, {maximum} bytes, is used up; "
        "delete what is not needed, or ask for a larger one",
        limit="quota_bytes",
        maximum=str(maximum),
    )


def bytes_missing(digest: bytes) -> ServiceError:
    """Say that bytes that were named are not stored."""
    return ServiceError(
        Reason.BYTES_MISSING,
        f"the bytes of {digest.hex()} are not stored; ask what is missing and send it",
        digest=digest.hex(),
    )


def offset_out_of_range(offset: int, size: int) -> ServiceError:
    """Say that a read would begin past the end."""
    return ServiceError(
        Reason.OFFSET_OUT_OF_RANGE,
        f"the offset {offset} is past the end; the file has {size} bytes",
        size_bytes=str(size),
    )


def digest_mismatch(digest: bytes, problem: str) -> ServiceError:
    """Say that bytes do not have the digest or size they were declared with."""
    return ServiceError(Reason.DIGEST_MISMATCH, f"{digest.hex()}: {problem}", digest=digest.hex())


def corrupt_bytes(digest: bytes) -> ServiceError:
    """Say that stored bytes do not have their digest any more."""
    return ServiceError(
        Reason.CORRUPT_BYTES,
        f"the stored bytes of {digest.hex()} are damaged; push the same files again to repair them",
        digest=digest.hex(),
    )
