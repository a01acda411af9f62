"""Entries of the audit trail, and the tables that every service keeps them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import microseconds

RESOURCE_LENGTH = 512
TEXT_LENGTH = 256
OK = "OK"


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what, or was refused it, before it has its place in the chain."""

    time_us: int
    actor: str
    delegation: str
    method: str
    resource: str
    request_id: str
    outcome: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry in its place in the chain."""

    sequence: int
    entry: Entry
    hash: bytes


def new_entry(
    *, actor: str, delegation: str, method: str, resource: str, request_id: str, outcome: str
) -> Entry:
    """Return an entry of this moment; what callers chose is cut to what may be kept."""
    return Entry(
        microseconds(datetime.now(UTC)),
        kept(actor),
        kept(delegation, RESOURCE_LENGTH),
        method,
        kept(resource, RESOURCE_LENGTH),
        kept(request_id),
        outcome,
    )


def kept(text: str, length: int = TEXT_LENGTH) -> str:
    """Return as much of a text as is kept; a refused name may hold anything."""
    return text[:length].replace("\0", "\ufffd")


COLUMNS = ("time_us", "actor", "delegation", "method", "resource", "request_id", "outcome", "count")


def tables(metadata: sa.MetaData) -> tuple[sa.Table, sa.Table, sa.Table]:
    """Define the trail's tables in a service's own schema: rows that wait, the chain, its head."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    waiting = sa.Table(
        "audit_waiting",
        metadata,
        sa.Column("pk", row_id, primary_key=True, autoincrement=True),
        *_columns(),
    )
    chain = sa.Table(
        "audit_entries",
        metadata,
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        *_columns(),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Index("audit_by_actor", "actor", "sequence"),
        sa.Index("audit_by_resource", "resource", "sequence"),
        sa.Index("audit_by_time", "time_us"),
    )
    head = sa.Table(
        "audit_head",
        metadata,
        # There is one row; whoever holds its lock adds to the chain.
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    return waiting, chain, head


def _columns() -> list[sa.Column[Any]]:
    numbers = ("time_us", "count")
    kinds: list[tuple[str, Any]] = [
        (name, sa.BigInteger if name in numbers else sa.Text) for name in COLUMNS
    ]
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds]


_INSERT = (
    f"INSERT INTO audit_waiting ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - names of our own
)


def add_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries, in whatever transaction is open."""
    rows = [row_of(entry) for entry in entries]
    driver_sql(connection, _INSERT, rows[0] if len(rows) == 1 else rows)


def row_of(entry: Entry) -> tuple[object, ...]:
    """Return an entry's columns."""
    return (
        entry.time_us,
        entry.actor,
        entry.delegation,
        entry.method,
        entry.resource,
        entry.request_id,
        entry.outcome,
        entry.count,
    )
