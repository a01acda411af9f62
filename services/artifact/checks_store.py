"""What must be true of the artifact service's tables at any moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.domain import DIGEST_BYTES, ChunkRef
from services.artifact.schema import ARTIFACTS, CHUNKS, FILES, HOLDS, PACKS
from services.common.names import ArtifactName
from services.common.sql.checks import Finding


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an artifact, and where its chunks lie."""

    project: str
    digest: bytes
    chunks: tuple[ChunkRef, ...]


def find_files(
    connection: Connection, version: str, artifact: str
) -> Iterator[StoredFile | Finding]:
    """Return the files of a version's artifact, and what is missing of them."""
    name = ArtifactName.parse(artifact)
    row = connection.execute(
        sa.select(ARTIFACTS.c.file_digests).where(
            ARTIFACTS.c.project == name.project, ARTIFACTS.c.digest == name.artifact
        )
    ).first()
    if row is None:
        yield Finding("bytes", version, f"its artifact {artifact} is not there")
        return
    held = sa.select(HOLDS.c.holder).where(
        HOLDS.c.project == name.project,
        HOLDS.c.digest == name.artifact,
        HOLDS.c.holder == version,
    )
    if connection.execute(held).first() is None:
        yield Finding("bytes", version, f"does not hold its artifact {artifact}")
    for digest in _split(bytes(row.file_digests)):
        yield _file(connection, version, name.project, digest)


def sealed_packs(connection: Connection) -> Mapping[str, int]:
    """Return the size of every pack that must be there."""
    query = sa.select(PACKS.c.pack, PACKS.c.size_bytes)
    query = query.where(PACKS.c.sealed.is_(sa.true()), PACKS.c.condemn_time.is_(None))
    return {row.pack: row.size_bytes for row in connection.execute(query)}


def known_packs(connection: Connection) -> frozenset[str]:
    """Return every pack that the database knows of, finished or not."""
    return frozenset(connection.execute(sa.select(PACKS.c.pack)).scalars())


def _file(
    connection: Connection, version: str, project: str, digest: bytes
) -> StoredFile | Finding:
    query = sa.select(FILES).where(FILES.c.project == project, FILES.c.digest == digest)
    row = connection.execute(query).first()
    if row is None or row.damaged:
        state = "missing" if row is None else "known to be damaged"
        return Finding("bytes", version, f"its file {digest.hex()} is {state}")
    chunks = []
    for chunk_digest in _split(bytes(row.chunk_digests)):
        chunk = connection.execute(
            sa.select(CHUNKS).where(CHUNKS.c.project == project, CHUNKS.c.digest == chunk_digest)
        ).first()
        if chunk is None:
            return Finding("bytes", version, f"a chunk of its file {digest.hex()} is missing")
        chunks.append(ChunkRef(chunk_digest, chunk.pack, chunk.position, chunk.length))
    return StoredFile(project, digest, tuple(chunks))


def _split(digests: bytes) -> Iterator[bytes]:
    for start in range(0, len(digests), DIGEST_BYTES):
        yield digests[start : start + DIGEST_BYTES]
