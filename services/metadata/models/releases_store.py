"""The table and queries of bytes that are to be given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.database import Timestamp
from services.metadata.schema import METADATA, upsert

RELEASES = sa.Table(
    "releases",
    METADATA,
    # The name of the version, run or dataset that is gone.
    sa.Column("holder", sa.Text, primary_key=True),
    # Who purged it: bytes are given back with that principal's rights.
    sa.Column("purger", sa.Text, nullable=False),
    sa.Column("due_time", Timestamp, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Release:
    """What is gone, and who made it go."""

    holder: str
    purger: str


def owe(connection: Connection, releases: Sequence[Release], now: datetime) -> None:
    """Note that what is gone is to give its bytes back; again puts it behind the others."""
    rows = [{"holder": r.holder, "purger": r.purger, "due_time": now} for r in releases]
    upsert(connection, RELEASES, ["holder"], rows)


def list_owed(connection: Connection, *, before: datetime, limit: int) -> list[Release]:
    """Return what has been owed since before a moment, oldest first."""
    query = sa.select(RELEASES).where(RELEASES.c.due_time < before)
    rows = connection.execute(query.order_by(RELEASES.c.due_time).limit(limit))
    return [Release(row.holder, row.purger) for row in rows]


def end(connection: Connection, release: Release) -> None:
    """Note that bytes were given back."""
    connection.execute(RELEASES.delete().where(RELEASES.c.holder == release.holder))
