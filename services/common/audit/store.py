"""The chain in a service's database: sealed by whoever holds its head, read in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from modelyard.auditing import FIRST, Head, link
from sqlalchemy.engine import Connection

from services.common.audit.entries import COLUMNS, Entry, Sealed, row_of, tables
from services.common.listing.filtering import (
    FieldCompiler,
    compile_filter,
    optional_text_field,
    parse_filter,
    parse_order,
    text_field,
    timestamp_field,
)
from services.common.listing.pagination import decode_token, encode_token
from services.common.sql.database import Timestamp
from services.common.sql.driver_sql import driver_sql

SEALED_AT_ONCE = 500
SCOPE = "audit"

_, _CHAIN, _ = tables(sa.MetaData())
_C = _CHAIN.c
_FIELDS: dict[str, FieldCompiler] = {
    "time": timestamp_field(sa.type_coerce(_C.time_us, Timestamp)),
    "actor": optional_text_field(_C.actor),
    "delegation": optional_text_field(_C.delegation),
    "resource": optional_text_field(_C.resource),
    "method": text_field(_C.method),
    "request_id": optional_text_field(_C.request_id),
    "outcome": text_field(_C.outcome),
}

_NAMES = ", ".join(COLUMNS)
_LOCK = (
    "INSERT INTO audit_head (one, sequence, hash) VALUES (1, 0, ?)"
    " ON CONFLICT (one) DO UPDATE SET sequence = audit_head.sequence RETURNING sequence, hash"
)
# Names of our own. What commits after it was looked for, with a lower number, waits for the
# next time.
_TAKE = (
    f"DELETE FROM audit_waiting WHERE pk IN"  # noqa: S608
    f" (SELECT pk FROM audit_waiting ORDER BY pk LIMIT {SEALED_AT_ONCE})"
    f" RETURNING pk, {_NAMES}"
)
_ADD = (
    f"INSERT INTO audit_entries (sequence, {_NAMES}, hash)"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(COLUMNS) + 2))})"
)
_MOVE_HEAD = "UPDATE audit_head SET sequence = ?, hash = ? WHERE one = 1"


def is_waiting(connection: Connection) -> bool:
    """Say whether there are entries that are not in the chain yet."""
    return driver_sql(connection, "SELECT 1 FROM audit_waiting LIMIT 1", ()).fetchone() is not None


def seal(connection: Connection, service: str) -> int:
    """Move entries that wait into the chain; return how many, at most `SEALED_AT_ONCE`."""
    sequence, previous = driver_sql(connection, _LOCK, (FIRST,)).fetchone()
    taken = sorted(driver_sql(connection, _TAKE, ()))
    rows: list[tuple[Any, ...]] = []
    for _, *columns in taken:
        sequence += 1
        previous = link(bytes(previous), fields(service, sequence, Entry(*columns)))
        rows.append((sequence, *columns, previous))
    if rows:
        driver_sql(connection, _ADD, rows)
        driver_sql(connection, _MOVE_HEAD, (sequence, previous))
    return len(rows)


def fields(service: str, sequence: int, entry: Entry) -> dict[str, str | int]:
    """Return what an entry's hash is made of."""
    values: Any = dict(zip(COLUMNS, row_of(entry), strict=True))
    values["time"] = values.pop("time_us")
    return {"service": service, "sequence": sequence, **values}


def find_head(connection: Connection) -> Head:
    """Return where the chain ends."""
    row = driver_sql(connection, "SELECT sequence, hash FROM audit_head", ()).fetchone()
    return Head() if row is None else Head(int(row[0]), bytes(row[1]))


def read_page(
    connection: Connection, *, where: str, order: str, size: int, token: str
) -> tuple[list[Sealed], str]:
    """Return a page of the chain, and the next page's token.

    Raises:
        ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN.
    """
    expression = parse_filter(where)
    terms = parse_order(order, ["sequence"])
    descending = terms[0].descending if terms else True
    scope = "\n".join((SCOPE, str(descending), where))
    query = sa.select(_CHAIN).limit(size + 1)
    query = query.order_by(_C.sequence.desc() if descending else _C.sequence)
    if expression is not None:
        query = query.where(compile_filter(expression, _FIELDS))
    key = decode_token(token, scope, tuple[int])
    if key is not None:
        query = query.where(_C.sequence < key[0] if descending else _C.sequence > key[0])
    found = list(_sealed(connection.execute(query)))
    if len(found) <= size:
        return found, ""
    return found[:size], encode_token(scope, (found[size - 1].sequence,))


def every_entry(connection: Connection) -> Iterator[Sealed]:
    """Yield the whole chain, oldest first, as it is stored."""
    query, last = sa.select(_CHAIN).order_by(_C.sequence).limit(SEALED_AT_ONCE), 0
    while page := list(_sealed(connection.execute(query.where(_C.sequence > last)))):
        yield from page
        last = page[-1].sequence


def _sealed(rows: Any) -> Iterator[Sealed]:
    for sequence, *columns, digest in rows:
        yield Sealed(sequence, Entry(*columns), bytes(digest))
