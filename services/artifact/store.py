"""The artifact service's tables and queries, for SQLite and PostgreSQL alike.

Every row is keyed by its project, also those of chunks and files: sharing bytes
between projects would tell one what another has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from services.artifact.domain import Artifact, ChunkRef, Hold, Pack, StoredFile
from services.common.database import Timestamp
from services.common.names import ArtifactName

_SLICE = 500

METADATA = sa.MetaData()

PACKS = sa.Table(
    "packs",
    METADATA,
    sa.Column("pack", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
)
CHUNKS = sa.Table(
    "chunks",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("pack", sa.Text, sa.ForeignKey("packs.pack"), nullable=False, index=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    # Found unreadable: it counts as missing, so that a push of the same bytes repairs it.
    sa.Column("damaged", sa.Boolean, nullable=False),
    sa.Column("lease_expire_time", Timestamp, nullable=False),
)
FILES = sa.Table(
    "files",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("chunk_digests", sa.LargeBinary, nullable=False),
    sa.Column("chunk_lengths", sa.LargeBinary, nullable=False),
    sa.Column("damaged", sa.Boolean, nullable=False),
    # A leased file keeps its chunks too.
    sa.Column("lease_expire_time", Timestamp, nullable=False),
)
ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("file_count", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    # A leased artifact keeps its files and their chunks too.
    sa.Column("lease_expire_time", Timestamp, nullable=False),
)
HOLDS = sa.Table(
    "holds",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("create_time", Timestamp, nullable=False),
)
sa.Index("holds_holder", HOLDS.c.project, HOLDS.c.holder)


def chunk_leases(
    connection: Connection, project: str, digests: Sequence[bytes]
) -> dict[bytes, datetime]:
    """Return until when each of the sound chunks among these is leased."""
    return _leases(connection, CHUNKS, project, digests)


def file_leases(
    connection: Connection, project: str, digests: Sequence[bytes]
) -> dict[bytes, datetime]:
    """Return until when each of the sound files among these is leased."""
    return _leases(connection, FILES, project, digests)


def extend_leases(
    connection: Connection,
    project: str,
    *,
    files: Sequence[bytes],
    chunks: Sequence[bytes],
    until: datetime,
) -> None:
    """Lease files and chunks at least until a moment."""
    for table, digests in ((FILES, files), (CHUNKS, chunks)):
        for some in _slices(sorted(digests)):
            connection.execute(
                table.update()
                .where(_among(table, project, some), table.c.lease_expire_time < until)
                .values(lease_expire_time=until)
            )


def find_chunks(
    connection: Connection, project: str, digests: Sequence[bytes], *, damaged: bool = False
) -> dict[bytes, ChunkRef]:
    """Return where chunks lie; damaged ones only when asked for."""
    found: dict[bytes, ChunkRef] = {}
    for some in _slices(digests):
        query = sa.select(CHUNKS.c.digest, CHUNKS.c.pack, CHUNKS.c.position, CHUNKS.c.length).where(
            _among(CHUNKS, project, some)
        )
        if not damaged:
            query = query.where(CHUNKS.c.damaged.is_(sa.false()))
        for digest, pack, position, length in connection.execute(query):
            found[bytes(digest)] = ChunkRef(bytes(digest), pack, position, length)
    return found


def find_files(
    connection: Connection, project: str, digests: Sequence[bytes], *, damaged: bool = False
) -> dict[bytes, StoredFile]:
    """Return committed files; damaged ones only when asked for."""
    found: dict[bytes, StoredFile] = {}
    for some in _slices(digests):
        query = sa.select(
            FILES.c.digest, FILES.c.size_bytes, FILES.c.chunk_digests, FILES.c.chunk_lengths
        ).where(_among(FILES, project, some))
        if not damaged:
            query = query.where(FILES.c.damaged.is_(sa.false()))
        for digest, size, chunks, lengths in connection.execute(query):
            found[bytes(digest)] = StoredFile.unpack(
                bytes(digest), size, bytes(chunks), bytes(lengths)
            )
    return found


def file_sizes(connection: Connection, project: str, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Return the sizes of the sound files among these."""
    found: dict[bytes, int] = {}
    for some in _slices(digests):
        query = sa.select(FILES.c.digest, FILES.c.size_bytes).where(
            _among(FILES, project, some), FILES.c.damaged.is_(sa.false())
        )
        found |= {bytes(digest): size for digest, size in connection.execute(query)}
    return found


def add_pack(
    connection: Connection, project: str, pack: Pack, *, now: datetime, lease: datetime
) -> None:
    """Record a durable pack and its chunks; chunks stored meanwhile stay where they are."""
    connection.execute(
        PACKS.insert().values(
            pack=pack.pack, project=project, size_bytes=pack.size, create_time=now
        )
    )
    statement = _insert(connection, CHUNKS)
    statement = statement.on_conflict_do_update(
        index_elements=[CHUNKS.c.project, CHUNKS.c.digest],
        set_={
            name: statement.excluded[name]
            for name in ("pack", "position", "length", "damaged", "lease_expire_time")
        },
        where=CHUNKS.c.damaged.is_(sa.true()),
    )
    rows = [
        {
            "project": project,
            "digest": ref.digest,
            "pack": ref.pack,
            "position": ref.offset,
            "length": ref.length,
            "damaged": False,
            "lease_expire_time": lease,
        }
        # In one order everywhere, so that two writers of the same chunks cannot deadlock.
        for ref in sorted(pack.chunks, key=lambda ref: ref.digest)
    ]
    connection.execute(statement, rows)


def add_files(
    connection: Connection, project: str, files: Sequence[StoredFile], *, lease: datetime
) -> None:
    """Record verified files; those that are committed and sound stay as they are."""
    statement = _insert(connection, FILES)
    statement = statement.on_conflict_do_update(
        index_elements=[FILES.c.project, FILES.c.digest],
        set_={
            name: statement.excluded[name]
            for name in ("chunk_digests", "chunk_lengths", "damaged", "lease_expire_time")
        },
        where=FILES.c.damaged.is_(sa.true()),
    )
    rows = [
        {
            "project": project,
            "digest": file.digest,
            "size_bytes": file.size,
            "chunk_digests": file.pack_chunks(),
            "chunk_lengths": file.pack_lengths(),
            "damaged": False,
            "lease_expire_time": lease,
        }
        for file in sorted(files, key=lambda file: file.digest)
    ]
    connection.execute(statement, rows)


def mark_damaged(connection: Connection, project: str, *, chunk: ChunkRef, file: bytes) -> None:
    """Make a chunk found unreadable, and the file it was found in, count as missing."""
    connection.execute(
        CHUNKS.update()
        .where(
            CHUNKS.c.project == project,
            CHUNKS.c.digest == chunk.digest,
            CHUNKS.c.pack == chunk.pack,
            CHUNKS.c.position == chunk.offset,
        )
        .values(damaged=True)
    )
    connection.execute(
        FILES.update()
        .where(FILES.c.project == project, FILES.c.digest == file)
        .values(damaged=True)
    )


def add_artifact(connection: Connection, artifact: Artifact, *, lease: datetime) -> Artifact:
    """Record an artifact; return the one that was recorded first."""
    connection.execute(
        _insert(connection, ARTIFACTS)
        .values(
            project=artifact.name.project,
            digest=artifact.name.artifact,
            file_count=artifact.file_count,
            size_bytes=artifact.size,
            creator=artifact.creator,
            create_time=artifact.create_time,
            lease_expire_time=lease,
        )
        .on_conflict_do_nothing()
    )
    return find_artifact(connection, artifact.name) or artifact


def find_artifact(connection: Connection, name: ArtifactName) -> Artifact | None:
    """Return an artifact."""
    query = sa.select(
        ARTIFACTS.c.file_count,
        ARTIFACTS.c.size_bytes,
        ARTIFACTS.c.creator,
        ARTIFACTS.c.create_time,
    ).where(*_is(ARTIFACTS, name))
    row = connection.execute(query).first()
    if row is None:
        return None
    return Artifact(name, row.file_count, row.size_bytes, row.creator, row.create_time)


def lease_artifact(connection: Connection, name: ArtifactName, *, until: datetime) -> bool:
    """Lease an artifact at least until a moment; say whether it exists."""
    connection.execute(
        ARTIFACTS.update()
        .where(*_is(ARTIFACTS, name), ARTIFACTS.c.lease_expire_time < until)
        .values(lease_expire_time=until)
    )
    return find_artifact(connection, name) is not None


def add_hold(connection: Connection, hold: Hold) -> Hold:
    """Record a hold; return the one that was recorded first."""
    connection.execute(
        _insert(connection, HOLDS)
        .values(
            project=hold.artifact.project,
            digest=hold.artifact.artifact,
            holder=hold.holder,
            create_time=hold.create_time,
        )
        .on_conflict_do_nothing()
    )
    return find_hold(connection, hold.artifact, hold.holder) or hold


@dataclass(frozen=True, slots=True)
class Holding:
    """A hold, if it was taken, and until when its artifact is leased, if it exists."""

    hold: Hold | None
    lease_expire_time: datetime | None


def find_holding(connection: Connection, name: ArtifactName, holder: str) -> Holding:
    """Return what keeps an artifact."""
    values = {"project": name.project, "digest": name.artifact, "holder": holder}
    row = connection.execute(_select_holding(), values).first()
    if row is None:
        return Holding(None, None)
    hold = None if row.create_time is None else Hold(name, holder, row.create_time)
    return Holding(hold, row.lease_expire_time)


@functools.cache
def _select_holding() -> sa.Select[Any]:
    is_hold = sa.and_(
        HOLDS.c.project == ARTIFACTS.c.project,
        HOLDS.c.digest == ARTIFACTS.c.digest,
        HOLDS.c.holder == sa.bindparam("holder"),
    )
    return (
        sa.select(ARTIFACTS.c.lease_expire_time, HOLDS.c.create_time)
        .select_from(ARTIFACTS.outerjoin(HOLDS, is_hold))
        .where(
            ARTIFACTS.c.project == sa.bindparam("project"),
            ARTIFACTS.c.digest == sa.bindparam("digest"),
        )
    )


def find_hold(connection: Connection, name: ArtifactName, holder: str) -> Hold | None:
    """Return a hold."""
    query = sa.select(HOLDS.c.create_time).where(*_is(HOLDS, name), HOLDS.c.holder == holder)
    time = connection.execute(query).scalar()
    return None if time is None else Hold(name, holder, time)


def list_holds(connection: Connection, name: ArtifactName, *, after: str, limit: int) -> list[Hold]:
    """Return an artifact's holds whose holders come after one, by holder."""
    query = (
        sa.select(HOLDS.c.holder, HOLDS.c.create_time)
        .where(*_is(HOLDS, name), HOLDS.c.holder > after)
        .order_by(HOLDS.c.holder)
        .limit(limit)
    )
    return [Hold(name, row.holder, row.create_time) for row in connection.execute(query)]


def delete_hold(connection: Connection, name: ArtifactName, holder: str) -> None:
    """Remove a hold; there may be none."""
    connection.execute(HOLDS.delete().where(*_is(HOLDS, name), HOLDS.c.holder == holder))


def delete_holder(connection: Connection, project: str, holder: str) -> None:
    """Remove all holds of a holder; there may be none."""
    held = sa.and_(HOLDS.c.project == project, HOLDS.c.holder == holder)
    connection.execute(HOLDS.delete().where(held))


def _leases(
    connection: Connection, table: sa.Table, project: str, digests: Sequence[bytes]
) -> dict[bytes, datetime]:
    found: dict[bytes, datetime] = {}
    for some in _slices(digests):
        query = sa.select(table.c.digest, table.c.lease_expire_time).where(
            _among(table, project, some), table.c.damaged.is_(sa.false())
        )
        found |= {bytes(digest): time for digest, time in connection.execute(query)}
    return found


def _is(table: sa.Table, name: ArtifactName) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.project == name.project, table.c.digest == name.artifact


def _among(table: sa.Table, project: str, digests: Sequence[bytes]) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.project == project, table.c.digest.in_(digests))


def _slices(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a long list of digests into as many as one statement should carry."""
    for start in range(0, len(digests), _SLICE):
        yield digests[start : start + _SLICE]


def _insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that can say what to do on a conflict; both dialects spell it alike."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
