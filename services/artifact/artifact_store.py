"""Queries of artifacts, and of the holds that keep them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.domain import Artifact, Hold, bytes_missing
from services.artifact.schema import ARTIFACTS, FILES, HOLDS
from services.artifact.store import insert, refer
from services.common.names import ArtifactName
from services.common.sql.database import Timestamp
from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import microseconds, moment

_FIND_LEASES = "SELECT digest, lease_expire_time FROM artifacts WHERE project = ? AND digest IN"
_FIND_HOLDERS = "SELECT digest, holder FROM holds WHERE project = ? AND holder IN"
_ADD_HOLD = (
    "INSERT INTO holds (project, digest, holder, create_time) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)


def add_artifact(
    connection: Connection, artifact: Artifact, *, files: Collection[bytes], lease: datetime
) -> Artifact:
    """Record an artifact, which refers to its files from now on; return what was recorded first.

    Raises:
        ServiceError: BYTES_MISSING when a file went meanwhile.
    """
    values = {
        "project": artifact.name.project,
        "digest": artifact.name.artifact,
        "file_count": artifact.file_count,
        "size_bytes": artifact.size,
        "file_digests": b"".join(sorted(files)),
        "creator": artifact.creator,
        "create_time": artifact.create_time,
        "lease_expire_time": lease,
    }
    statement = insert(connection, ARTIFACTS).values(**values).on_conflict_do_nothing()
    if connection.execute(statement.returning(ARTIFACTS.c.digest)).first() is None:
        first = lease_artifact(connection, artifact.name, until=lease)
        if first is None:  # swept since the statement before
            raise bytes_missing(bytes.fromhex(artifact.name.artifact))
        return first
    if refer(connection, FILES, artifact.name.project, Counter(files)) < len(files):
        raise bytes_missing(bytes.fromhex(artifact.name.artifact))
    return artifact


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


def lease_artifact(
    connection: Connection, name: ArtifactName, *, until: datetime
) -> Artifact | None:
    """Lease an artifact at least until a moment; return it, None when there is none."""
    connection.execute(
        ARTIFACTS.update()
        .where(*_is(ARTIFACTS, name), ARTIFACTS.c.lease_expire_time < until)
        .values(lease_expire_time=until)
    )
    return find_artifact(connection, name)


def artifact_lease(connection: Connection, name: ArtifactName) -> datetime | None:
    """Return until when an artifact is leased."""
    query = sa.select(ARTIFACTS.c.lease_expire_time).where(*_is(ARTIFACTS, name))
    return connection.execute(query).scalar()


def add_hold(connection: Connection, hold: Hold) -> Hold:
    """Record a hold; return the one that was recorded first.

    Raises:
        ServiceError: BYTES_MISSING when the artifact went meanwhile.
    """
    name = hold.artifact
    # The lock, where the database has such, makes a sweep wait and then see the hold.
    artifact = (
        sa.select(
            ARTIFACTS.c.project,
            ARTIFACTS.c.digest,
            sa.literal(hold.holder),
            sa.literal(hold.create_time, Timestamp),
        )
        .where(*_is(ARTIFACTS, name))
        .with_for_update(read=True, key_share=True)
    )
    new = insert(connection, HOLDS).from_select([column.name for column in HOLDS.c], artifact)
    added = new.on_conflict_do_nothing().returning(HOLDS.c.holder)
    if connection.execute(added).first() is not None:
        return hold
    earlier = find_hold(connection, name, hold.holder)
    if earlier is None:
        raise bytes_missing(bytes.fromhex(name.artifact))
    return earlier


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


def find_holdings(
    connection: Connection, wanted: Sequence[tuple[ArtifactName, str]]
) -> tuple[set[tuple[ArtifactName, str]], dict[ArtifactName, datetime]]:
    """Return which holds on artifacts of one project are taken, and the artifacts' leases."""
    project = wanted[0][0].project
    names = {name.artifact: name for name, _ in wanted}
    found = driver_sql(connection, _FIND_LEASES + _marks(names), (project, *names))
    leases = {names[digest]: moment(until) for digest, until in found}
    holders = [holder for _, holder in wanted]
    found = driver_sql(connection, _FIND_HOLDERS + _marks(holders), (project, *holders))
    return {(names[digest], holder) for digest, holder in found if digest in names}, leases


def add_holds(connection: Connection, holds: Sequence[Hold]) -> set[ArtifactName]:
    """Record holds on artifacts of one project; return the artifacts that went meanwhile."""
    project = holds[0].artifact.project
    names = {hold.artifact.artifact: hold.artifact for hold in holds}
    # The lock, where the database has such, makes a sweep wait and then see the holds.
    lock = "" if connection.dialect.name == "sqlite" else " ORDER BY digest FOR KEY SHARE"
    statement = _FIND_LEASES + _marks(names) + lock
    standing = {digest for digest, _ in driver_sql(connection, statement, (project, *names))}
    rows = [
        (project, hold.artifact.artifact, hold.holder, microseconds(hold.create_time))
        for hold in holds
        if hold.artifact.artifact in standing
    ]
    if rows:
        driver_sql(connection, _ADD_HOLD, rows)
    return {name for digest, name in names.items() if digest not in standing}


def _marks(values: Collection[str]) -> str:
    return f" ({', '.join('?' * len(values))})"


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


def _is(table: sa.Table, name: ArtifactName) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.project == name.project, table.c.digest == name.artifact
