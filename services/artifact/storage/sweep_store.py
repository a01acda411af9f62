"""Queries of the sweep: what nothing needs any more, and letting it go.

Each statement says again what makes its rows garbage: what came to be needed
since they were looked for, by whomever, stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.domain import ChunkRef, Garbage, GarbageKind, Usage, split_digests
from services.artifact.schema import ARTIFACTS, CHUNKS, DUTIES, FILES, HOLDS, PACKS, SPACES
from services.artifact.store import add_live, among, insert, refer

_IMPLAUSIBLE = 3


@dataclass(frozen=True, slots=True)
class PackRow:
    """A pack as a sweep or a scrub looks at it."""

    pack: str
    project: str
    size: int
    live: int


def delete_artifacts(
    connection: Connection, project: str | None, *, now: datetime, limit: int
) -> list[Garbage]:
    """Delete artifacts that nothing holds and whose leases are over; release their files."""
    held = sa.exists().where(
        HOLDS.c.project == ARTIFACTS.c.project, HOLDS.c.digest == ARTIFACTS.c.digest
    )
    unneeded = sa.and_(ARTIFACTS.c.lease_expire_time < now, ~held)
    found = sa.select(ARTIFACTS.c.project, ARTIFACTS.c.digest).where(unneeded).limit(limit)
    # Locked first, so that the statement that deletes sees every hold that was taken before.
    locked = _of(found, ARTIFACTS, project).with_for_update(skip_locked=True)
    gone: list[Garbage] = []
    for row in connection.execute(locked).all():
        is_it = sa.and_(ARTIFACTS.c.project == row.project, ARTIFACTS.c.digest == row.digest)
        deleted = connection.execute(
            ARTIFACTS.delete()
            .where(is_it, unneeded)
            .returning(
                ARTIFACTS.c.file_digests, ARTIFACTS.c.size_bytes, ARTIFACTS.c.lease_expire_time
            )
        ).first()
        if deleted is not None:
            files = split_digests(bytes(deleted.file_digests))
            refer(connection, FILES, row.project, Counter(files), sign=-1)
            name = f"projects/{row.project}/artifacts/{row.digest}"
            reason = f"nothing holds it; its lease ended {_moment(deleted.lease_expire_time)}"
            gone.append(Garbage(GarbageKind.ARTIFACT, name, deleted.size_bytes, reason))
    return gone


def delete_files(
    connection: Connection, project: str | None, *, now: datetime, limit: int
) -> list[Garbage]:
    """Delete files that no artifact lists and whose leases are over; release their chunks."""
    gone: list[Garbage] = []
    for owner, digests in _unused(connection, FILES, project, now=now, limit=limit).items():
        deleted = FILES.delete().where(among(FILES, owner, digests), _is_unused(FILES, now))
        counts: Counter[bytes] = Counter()
        for row in connection.execute(
            deleted.returning(
                FILES.c.digest,
                FILES.c.size_bytes,
                FILES.c.chunk_digests,
                FILES.c.lease_expire_time,
            )
        ):
            counts.update(set(split_digests(bytes(row.chunk_digests))))
            name = f"projects/{owner}: file {bytes(row.digest).hex()}"
            reason = f"no artifact lists it; its lease ended {_moment(row.lease_expire_time)}"
            gone.append(Garbage(GarbageKind.FILE, name, row.size_bytes, reason))
        refer(connection, CHUNKS, owner, counts, sign=-1)
    return gone


def condemn_chunks(
    connection: Connection, project: str | None, *, now: datetime, limit: int
) -> int:
    """Mark chunks that are in no file and whose leases are over; return how many.

    Whatever needs one again takes the mark off.
    """
    unmarked = CHUNKS.c.condemn_time.is_(None)
    found = _unused(connection, CHUNKS, project, now=now, limit=limit, also=unmarked)
    count = 0
    for owner, digests in found.items():
        which = sa.and_(among(CHUNKS, owner, digests), _is_unused(CHUNKS, now), unmarked)
        count += connection.execute(CHUNKS.update().where(which).values(condemn_time=now)).rowcount
    return count


def delete_chunks(
    connection: Connection, project: str | None, *, now: datetime, before: datetime, limit: int
) -> list[Garbage]:
    """Delete chunks that were condemned before a moment and are still not needed."""
    condemned = CHUNKS.c.condemn_time <= before
    found = _unused(connection, CHUNKS, project, now=now, limit=limit, also=condemned)
    gone: list[Garbage] = []
    for owner, digests in found.items():
        which = sa.and_(among(CHUNKS, owner, digests), _is_unused(CHUNKS, now), condemned)
        by_pack: Counter[str] = Counter()
        sound: Counter[str] = Counter()
        count: Counter[str] = Counter()
        for row in connection.execute(
            CHUNKS.delete().where(which).returning(CHUNKS.c.pack, CHUNKS.c.length, CHUNKS.c.damaged)
        ):
            by_pack[row.pack] += row.length
            sound[row.pack] += 0 if row.damaged else row.length
            count[row.pack] += 1
        for pack in sorted(by_pack):
            add_live(connection, pack, -sound[pack])
            name = f"projects/{owner}: {count[pack]} chunks of pack {pack}"
            reason = "no file has them, and their leases are over"
            gone.append(Garbage(GarbageKind.CHUNKS, name, by_pack[pack], reason, count[pack]))
    return gone


def condemn_packs(
    connection: Connection, project: str | None, *, now: datetime, unsealed_before: datetime
) -> None:
    """Mark packs in which nothing lies, and those that were never finished.

    No chunk ever comes to lie in a pack that is sealed, or marked.
    """
    lies_there = sa.exists().where(CHUNKS.c.pack == PACKS.c.pack)
    empty = sa.and_(PACKS.c.sealed.is_(sa.true()), PACKS.c.live_bytes == 0, ~lies_there)
    given_up = sa.and_(PACKS.c.sealed.is_(sa.false()), PACKS.c.create_time < unsealed_before)
    # One after the other: a pack sealed meanwhile must be looked at anew, with its chunks.
    for which in (empty, given_up):
        marked = PACKS.update().where(PACKS.c.condemn_time.is_(None), which)
        connection.execute(_of(marked.values(condemn_time=now), PACKS, project))


def give_up_pack(connection: Connection, pack: str, *, now: datetime) -> None:
    """Mark a pack that could not be stored: what was stored of it goes, its quota is freed."""
    unsealed = sa.and_(PACKS.c.pack == pack, PACKS.c.sealed.is_(sa.false()))
    connection.execute(PACKS.update().where(unsealed).values(condemn_time=now))


def condemned_packs(
    connection: Connection, project: str | None, *, before: datetime, limit: int
) -> list[PackRow]:
    """Return packs that were condemned before a moment."""
    query = _select_packs().where(PACKS.c.condemn_time <= before)
    return _packs(connection, _of(query, PACKS, project).limit(limit))


def forget_pack(connection: Connection, pack: PackRow) -> bool:
    """Forget a condemned pack; False when that was done before."""
    condemned = sa.and_(PACKS.c.pack == pack.pack, PACKS.c.condemn_time.is_not(None))
    if not connection.execute(PACKS.delete().where(condemned)).rowcount:
        return False
    stored = SPACES.c.stored_bytes - pack.size
    space = SPACES.update().where(SPACES.c.project == pack.project)
    connection.execute(space.values(stored_bytes=stored))
    return True


def sparse_packs(
    connection: Connection, project: str | None, *, share: float, limit: int
) -> list[PackRow]:
    """Return packs of which less than a share is needed, but not nothing."""
    sparse = sa.and_(
        PACKS.c.sealed.is_(sa.true()),
        PACKS.c.condemn_time.is_(None),
        PACKS.c.live_bytes > 0,
        PACKS.c.live_bytes < PACKS.c.size_bytes * share,
    )
    query = _select_packs().where(sparse).order_by(PACKS.c.project, PACKS.c.pack)
    return _packs(connection, _of(query, PACKS, project).limit(limit))


def chunks_of(connection: Connection, pack: str) -> list[ChunkRef]:
    """Return the chunks that lie in a pack, in order, damaged ones too."""
    query = (
        sa.select(CHUNKS.c.digest, CHUNKS.c.position, CHUNKS.c.length)
        .where(CHUNKS.c.pack == pack)
        .order_by(CHUNKS.c.position)
    )
    return [
        ChunkRef(bytes(row.digest), pack, row.position, row.length)
        for row in connection.execute(query)
    ]


def move_chunks(
    connection: Connection, project: str, moves: Iterable[tuple[ChunkRef, ChunkRef]]
) -> None:
    """Let chunks lie where they were copied to, those that still lie where they were."""
    moved: Counter[str] = Counter()
    for old, new in sorted(moves, key=lambda move: move[0].digest):
        is_there = sa.and_(
            CHUNKS.c.project == project,
            CHUNKS.c.digest == old.digest,
            CHUNKS.c.pack == old.pack,
            CHUNKS.c.position == old.offset,
            CHUNKS.c.damaged.is_(sa.false()),
        )
        place = {"pack": new.pack, "position": new.offset}
        if connection.execute(CHUNKS.update().where(is_there).values(**place)).rowcount:
            moved[old.pack] -= old.length
            moved[new.pack] += new.length
    for pack in sorted(moved):
        add_live(connection, pack, moved[pack])


def next_to_verify(connection: Connection, *, before: datetime) -> PackRow | None:
    """Return a pack that nobody but its sender looked into, or that was read longest ago."""
    claimed = PACKS.c.claimant != sa.literal_column("''")
    for due in (claimed, PACKS.c.verify_time < before):
        query = _select_packs().where(
            PACKS.c.sealed.is_(sa.true()), PACKS.c.condemn_time.is_(None), due
        )
        found = _packs(connection, query.order_by(PACKS.c.verify_time).limit(1))
        if found:
            return found[0]
    return None


def set_verified(connection: Connection, pack: str, now: datetime) -> None:
    """Record that a pack was read over."""
    connection.execute(
        PACKS.update().where(PACKS.c.pack == pack).values(verify_time=now, claimant="")
    )


def usage(connection: Connection, project: str) -> Usage:
    """Return what a project stores."""
    space = connection.execute(sa.select(SPACES).where(SPACES.c.project == project)).first()
    live = sa.select(sa.func.coalesce(sa.func.sum(PACKS.c.live_bytes), 0))
    artifacts, files, damaged = (
        connection.execute(query).scalar_one()
        for query in (
            _count(ARTIFACTS, project),
            _count(FILES, project),
            _count(CHUNKS, project).where(CHUNKS.c.damaged.is_(sa.true())),
        )
    )
    return Usage(
        stored=space.stored_bytes if space else 0,
        live=int(connection.execute(live.where(PACKS.c.project == project)).scalar_one()),
        quota=space.quota_bytes if space else None,
        artifacts=artifacts,
        files=files,
        damaged_chunks=damaged,
    )


def set_quota(connection: Connection, project: str, quota: int | None) -> None:
    """Set or lift a project's quota."""
    row = {"project": project, "stored_bytes": 0, "quota_bytes": quota}
    statement = insert(connection, SPACES).values(**row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[SPACES.c.project], set_={"quota_bytes": statement.excluded.quota_bytes}
        )
    )


def take_duty(
    connection: Connection, duty: str, holder: str, *, now: datetime, until: datetime
) -> bool:
    """Be the one replica to do something, until a moment; False while another one is.

    Who has it for much longer than it is ever taken for took it while its clock was wrong.
    """
    row = {"duty": duty, "holder": holder, "expire_time": until}
    statement = insert(connection, DUTIES).values(**row)
    statement = statement.on_conflict_do_update(
        index_elements=[DUTIES.c.duty],
        set_={name: statement.excluded[name] for name in ("holder", "expire_time")},
        where=sa.or_(
            DUTIES.c.holder == holder,
            DUTIES.c.expire_time < now,
            DUTIES.c.expire_time > now + _IMPLAUSIBLE * (until - now),
        ),
    )
    # What an insert with a conflict did, PostgreSQL's driver tells by its rows alone.
    return connection.execute(statement.returning(DUTIES.c.duty)).first() is not None


def _is_unused(table: sa.Table, now: datetime) -> sa.ColumnElement[bool]:
    # Spelled out, so that the partial index is known again.
    return sa.and_(table.c.refs == sa.literal_column("0"), table.c.lease_expire_time < now)


def _unused(
    connection: Connection,
    table: sa.Table,
    project: str | None,
    *,
    now: datetime,
    limit: int,
    also: sa.ColumnElement[bool] | None = None,
) -> dict[str, Sequence[bytes]]:
    """Return rows that nothing refers to and whose leases are over, by project."""
    query = sa.select(table.c.project, table.c.digest).where(_is_unused(table, now))
    if also is not None:
        query = query.where(also)
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for row in connection.execute(_of(query, table, project).limit(limit)):
        found[row.project].append(bytes(row.digest))
    return dict(found)


def _of(statement: Any, table: sa.Table, project: str | None) -> Any:
    return statement if project is None else statement.where(table.c.project == project)


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _select_packs() -> sa.Select[Any]:
    return sa.select(PACKS.c.pack, PACKS.c.project, PACKS.c.size_bytes, PACKS.c.live_bytes)


def _packs(connection: Connection, query: sa.Select[Any]) -> list[PackRow]:
    return [PackRow(*row) for row in connection.execute(query)]


def _count(table: sa.Table, project: str) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(table).where(table.c.project == project)
