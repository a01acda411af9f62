"""Queries of packs, of the chunks in them and of the files made of chunks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from services.artifact.domain import ChunkRef, Pack, StoredFile, bytes_missing, split_digests
from services.artifact.schema import CHUNKS, FILES, PACKS, SPACES
from services.common.sql.driver_sql import driver_sql

_SLICE = 500


def chunk_leases(
    connection: Connection, project: str, digests: Sequence[bytes]
) -> dict[bytes, datetime]:
    """Return until when each of the sound chunks among these is leased."""
    return _leases(connection, CHUNKS, project, digests)


def file_leases(
    connection: Connection, project: str, digests: Sequence[bytes], *, caller: str
) -> dict[bytes, datetime]:
    """Return until when each of the sound files among these is leased, as a caller sees it."""
    return _leases(connection, FILES, project, digests, is_known_to(caller))


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
        for some in slices(sorted(digests)):
            connection.execute(
                table.update()
                .where(among(table, project, some), table.c.lease_expire_time < until)
                .values(lease_expire_time=until, **_pardon(table))
            )


def _pardon(table: sa.Table) -> dict[str, None]:
    """Return what takes a sweep's mark off a row that is wanted again."""
    return {"condemn_time": None} if table is CHUNKS else {}


def find_chunks(
    connection: Connection, project: str, digests: Sequence[bytes], *, damaged: bool = False
) -> dict[bytes, ChunkRef]:
    """Return where chunks lie; damaged ones only when asked for."""
    sql = "SELECT digest, pack, position, length FROM chunks"
    return {
        bytes(digest): ChunkRef(bytes(digest), pack, position, length)
        for digest, pack, position, length in _among(connection, sql, project, digests, damaged)
    }


def find_files(
    connection: Connection, project: str, digests: Sequence[bytes], *, damaged: bool = False
) -> dict[bytes, StoredFile]:
    """Return committed files; damaged ones only when asked for."""
    sql = "SELECT digest, size_bytes, chunk_digests, chunk_lengths FROM files"
    return {
        bytes(digest): StoredFile.unpack(bytes(digest), size, bytes(chunks), bytes(lengths))
        for digest, size, chunks, lengths in _among(connection, sql, project, digests, damaged)
    }


def _among(
    connection: Connection, sql: str, project: str, digests: Sequence[bytes], damaged: bool
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a project with some digests, those that are damaged only when asked for."""
    sound = "" if damaged else " AND NOT damaged"
    for some in slices(digests):
        marks = ", ".join("?" * len(some))
        statement = f"{sql} WHERE project = ? AND digest IN ({marks}){sound}"
        yield from driver_sql(connection, statement, (project, *some))


def is_known_to(caller: str) -> sa.ColumnElement[bool]:
    """Say which files a caller may build on: those verified, and those of the caller's word."""
    return FILES.c.claimant.in_(["", caller])


def file_sizes(
    connection: Connection, project: str, digests: Sequence[bytes], *, caller: str
) -> dict[bytes, int]:
    """Return the sizes of the sound files among these, as a caller sees it."""
    found: dict[bytes, int] = {}
    for some in slices(digests):
        query = sa.select(FILES.c.digest, FILES.c.size_bytes).where(
            among(FILES, project, some), FILES.c.damaged.is_(sa.false()), is_known_to(caller)
        )
        found |= {bytes(digest): size for digest, size in connection.execute(query)}
    return found


def begin_pack(
    connection: Connection,
    project: str,
    pack: str,
    size: int,
    *,
    now: datetime,
    is_limited: bool = True,
) -> bool:
    """Record that a pack is about to be stored; False when the project's quota is too small."""
    row = {"project": project, "stored_bytes": 0, "quota_bytes": None}
    connection.execute(insert(connection, SPACES).values(**row).on_conflict_do_nothing())
    stored = SPACES.c.stored_bytes + size
    reserving = SPACES.update().where(SPACES.c.project == project).values(stored_bytes=stored)
    if is_limited:
        has_room = sa.or_(SPACES.c.quota_bytes.is_(None), stored <= SPACES.c.quota_bytes)
        reserving = reserving.where(has_room)
    if not connection.execute(reserving).rowcount:
        return False
    values = {"pack": pack, "project": project, "size_bytes": size, "create_time": now}
    fresh = {"sealed": False, "live_bytes": 0, "claimant": "", "verify_time": now}
    connection.execute(PACKS.insert().values(**values, **fresh))
    return True


def find_quota(connection: Connection, project: str) -> int:
    """Return how many bytes a project may store; it has a quota."""
    query = sa.select(SPACES.c.quota_bytes).where(SPACES.c.project == project)
    return int(connection.execute(query).scalar_one())


def seal_pack(connection: Connection, project: str, pack: Pack, *, lease: datetime) -> bool:
    """Record that a pack is durable, and its chunks; False when it was given up meanwhile.

    Chunks stored meanwhile stay where they are, unless damaged; all are leased.
    """
    if not mark_sealed(connection, pack.pack):
        return False
    damaged = find_damaged(connection, project)
    new = insert(connection, CHUNKS)
    # One statement: a sweep cannot take the row between seeing it and leasing it.
    place = {
        name: sa.case((CHUNKS.c.damaged.is_(sa.true()), new.excluded[name]), else_=CHUNKS.c[name])
        for name in ("pack", "position", "length")
    }
    leased = {"lease_expire_time": new.excluded.lease_expire_time, "condemn_time": None}
    upsert = new.on_conflict_do_update(
        index_elements=[CHUNKS.c.project, CHUNKS.c.digest],
        set_={**place, **leased, "damaged": sa.false()},
    ).returning(CHUNKS.c.digest, CHUNKS.c.pack)
    found = connection.execute(upsert, _chunk_rows(project, pack, lease))
    here = {bytes(digest) for digest, at in found if at == pack.pack}
    add_live(connection, pack.pack, sum(ref.length for ref in pack.chunks if ref.digest in here))
    if damaged & here:
        revive_files(connection, project)
    return True


def _chunk_rows(project: str, pack: Pack, lease: datetime) -> list[dict[str, object]]:
    return [
        {
            "project": project,
            "digest": ref.digest,
            "pack": ref.pack,
            "position": ref.offset,
            "length": ref.length,
            "damaged": False,
            "refs": 0,
            "lease_expire_time": lease,
        }
        # In one order everywhere, so that two writers of the same chunks cannot deadlock.
        for ref in sorted(pack.chunks, key=lambda ref: ref.digest)
    ]


def mark_sealed(connection: Connection, pack: str) -> bool:
    """Record that a pack's bytes are durable; False when a sweep gave it up."""
    is_wanted = sa.and_(PACKS.c.pack == pack, PACKS.c.condemn_time.is_(None))
    return connection.execute(PACKS.update().where(is_wanted).values(sealed=True)).rowcount > 0


def add_live(connection: Connection, pack: str, count: int) -> None:
    """Count bytes that came to live in a pack, or ceased to."""
    live = PACKS.c.live_bytes + count
    connection.execute(PACKS.update().where(PACKS.c.pack == pack).values(live_bytes=live))


def add_files(
    connection: Connection,
    project: str,
    files: Sequence[StoredFile],
    *,
    lease: datetime,
    claimant: str = "",
) -> None:
    """Record files, verified or claimed, which refer to their chunks from now on.

    Those that are committed, verified and sound stay as they are.

    Raises:
        ServiceError: BYTES_MISSING when a chunk went meanwhile.
    """
    files = sorted(files, key=lambda file: file.digest)
    rows = [
        {
            "project": project,
            "digest": file.digest,
            "size_bytes": file.size,
            "chunk_digests": file.pack_chunks(),
            "chunk_lengths": file.pack_lengths(),
            "damaged": False,
            "claimant": claimant,
            "refs": 0,
            "lease_expire_time": lease,
        }
        for file in files
    ]
    new = insert(connection, FILES).on_conflict_do_nothing().returning(FILES.c.digest)
    added = {bytes(digest) for digest in connection.execute(new, rows).scalars()}
    gained: Counter[bytes] = Counter()
    for file in files:
        if file.digest in added or _repair_file(connection, project, file, lease, claimant):
            gained.update(set(file.chunks))
    if refer(connection, CHUNKS, project, gained) < len(gained):
        raise bytes_missing(next(iter(gained)))


def _repair_file(
    connection: Connection, project: str, file: StoredFile, lease: datetime, claimant: str
) -> bool:
    """Give a file that is damaged, or somebody's word, sound chunks; False when it is neither."""
    is_it = sa.and_(FILES.c.project == project, FILES.c.digest == file.digest)
    doubtful = sa.or_(FILES.c.damaged.is_(sa.true()), FILES.c.claimant != "")
    old = connection.execute(
        sa.select(FILES.c.chunk_digests).where(is_it, doubtful).with_for_update()
    ).scalar()
    if old is None:
        return False
    lost = Counter(set(split_digests(bytes(old))))
    refer(connection, CHUNKS, project, lost, sign=-1)
    recipe = {"chunk_digests": file.pack_chunks(), "chunk_lengths": file.pack_lengths()}
    connection.execute(
        FILES.update()
        .where(is_it)
        .values(**recipe, damaged=False, claimant=claimant, lease_expire_time=lease)
    )
    return True


def refer(
    connection: Connection,
    table: sa.Table,
    project: str,
    counts: Mapping[bytes, int],
    *,
    sign: int = 1,
) -> int:
    """Count references to chunks or files, or their end; return how many of those exist."""
    by_count: defaultdict[int, list[bytes]] = defaultdict(list)
    for digest in sorted(counts):
        by_count[counts[digest]].append(digest)
    found = 0
    pardon = _pardon(table) if sign > 0 else {}
    for count, digests in sorted(by_count.items()):
        for some in slices(digests):
            changed = table.update().where(among(table, project, some))
            refs = table.c.refs + sign * count
            found += connection.execute(changed.values(refs=refs, **pardon)).rowcount
    return found


def mark_damaged(connection: Connection, project: str, ref: ChunkRef) -> bool:
    """Make a chunk found unreadable, and all files that have it, count as missing.

    False when it does not lie there any more, so that nothing was found out about it.
    """
    is_there = sa.and_(
        among(CHUNKS, project, [ref.digest]),
        CHUNKS.c.pack == ref.pack,
        CHUNKS.c.position == ref.offset,
    )
    sound = sa.and_(is_there, CHUNKS.c.damaged.is_(sa.false()))
    if not connection.execute(CHUNKS.update().where(sound).values(damaged=True)).rowcount:
        return connection.execute(sa.select(CHUNKS.c.digest).where(is_there)).first() is not None
    add_live(connection, ref.pack, -ref.length)
    # Looked for in every file of the project: that is rare, and no index is needed for it.
    has_chunk = (
        sa.text("position(:chunk in chunk_digests) > 0")
        if connection.dialect.name == "postgresql"
        else sa.text("instr(chunk_digests, :chunk) > 0")
    )
    files = FILES.update().where(FILES.c.project == project, has_chunk).values(damaged=True)
    connection.execute(files, {"chunk": ref.digest})
    return True


def mark_sound(connection: Connection, project: str, refs: Sequence[ChunkRef]) -> None:
    """Take back that chunks are damaged: they were just read and are not."""
    for ref in refs:
        is_it = sa.and_(
            among(CHUNKS, project, [ref.digest]),
            CHUNKS.c.pack == ref.pack,
            CHUNKS.c.damaged.is_(sa.true()),
        )
        if connection.execute(CHUNKS.update().where(is_it).values(damaged=False)).rowcount:
            add_live(connection, ref.pack, ref.length)
    revive_files(connection, project)


def revive_files(connection: Connection, project: str) -> None:
    """Let the damaged files of a project whose every chunk is sound count as stored again."""
    damaged = sa.and_(FILES.c.project == project, FILES.c.damaged.is_(sa.true()))
    query = sa.select(FILES.c.digest, FILES.c.chunk_digests).where(damaged)
    for digest, packed in connection.execute(query).all():
        chunks = set(split_digests(bytes(packed)))
        if len(find_chunks(connection, project, list(chunks))) == len(chunks):
            is_it = among(FILES, project, [bytes(digest)])
            connection.execute(FILES.update().where(is_it).values(damaged=False))


def find_damaged(connection: Connection, project: str) -> set[bytes]:
    """Return the damaged chunks of a project."""
    damaged = sa.and_(CHUNKS.c.project == project, CHUNKS.c.damaged.is_(sa.true()))
    return {
        bytes(d) for d in connection.execute(sa.select(CHUNKS.c.digest).where(damaged)).scalars()
    }


def _leases(
    connection: Connection,
    table: sa.Table,
    project: str,
    digests: Sequence[bytes],
    *which: sa.ColumnElement[bool],
) -> dict[bytes, datetime]:
    found: dict[bytes, datetime] = {}
    for some in slices(digests):
        query = sa.select(table.c.digest, table.c.lease_expire_time).where(
            among(table, project, some), table.c.damaged.is_(sa.false()), *which
        )
        found |= {bytes(digest): time for digest, time in connection.execute(query)}
    return found


def among(table: sa.Table, project: str, digests: Sequence[bytes]) -> sa.ColumnElement[bool]:
    """Say which rows of a project have some digests."""
    return sa.and_(table.c.project == project, table.c.digest.in_(digests))


def slices(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a long list of digests into as many as one statement should carry."""
    for start in range(0, len(digests), _SLICE):
        yield digests[start : start + _SLICE]


def insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that can say what to do on a conflict; both dialects spell it alike."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
