"""Idempotent writes: a request id's first answer, stored with the write itself.

The same id with the same payload gets the first answer again; with another
payload it is refused. Answers are kept per principal, so that nobody can read
another's by guessing an id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from services.common.errors import Reason, ServiceError
from services.common.sql.database import Timestamp, Transaction
from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import microseconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """Identify a write: who asks, with which id, for what."""

    principal: str
    request_id: str
    method: str
    fingerprint: bytes


def table(metadata: sa.MetaData) -> sa.Table:
    """Define the table of answers in a service's own schema."""
    return sa.Table(
        "answers",
        metadata,
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("create_time", Timestamp, nullable=False, index=True),
    )


_CLAIM = (
    "INSERT INTO answers (principal, request_id, method, fingerprint, answer, create_time)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (principal, request_id) DO NOTHING"
)
_ANSWER = "UPDATE answers SET answer = ? WHERE principal = ? AND request_id = ?"
_FIND = "SELECT method, fingerprint, answer FROM answers WHERE principal = ? AND request_id = ?"


def once(
    tx: Transaction,
    key: Key | None,
    kind: type[T],
    work: Callable[[], T],
    *,
    expected: T | None = None,
) -> T:
    """Do a write once per key; a repeat gets the first answer, a dataclass of `kind`.

    A repeat that comes meanwhile waits: its claim is in conflict with the first one's. What
    `work` is going to return, if that is known and given, need not be stored in a second step.

    Raises:
        ServiceError: REQUEST_ID_REUSED when the id came with another payload.
    """
    if key is None:
        return work()
    if not _claim(tx, key, b"" if expected is None else msgspec.msgpack.encode(expected)):
        stored = _find(tx, key)
        assert stored is not None  # noqa: S101 - the claim found it
        return msgspec.msgpack.decode(stored, type=kind)
    answer = work()
    if expected is not None:
        return answer
    names = (key.principal, key.request_id)
    driver_sql(tx.connection, _ANSWER, (msgspec.msgpack.encode(answer), *names))
    return answer


def answered(tx: Transaction, key: Key | None, kind: type[T]) -> T | None:
    """Return the first answer to a repeated write, before anything is asked of other services."""
    stored = None if key is None else _find(tx, key)
    return None if stored is None else msgspec.msgpack.decode(stored, type=kind)


def _claim(tx: Transaction, key: Key, answer: bytes) -> bool:
    """Be the one to answer a key; False when it was answered, which another's claim waits for."""
    now = microseconds(datetime.now(UTC))
    row = (key.principal, key.request_id, key.method, key.fingerprint, answer, now)
    return driver_sql(tx.connection, _CLAIM, row).rowcount == 1


def _find(tx: Transaction, key: Key) -> bytes | None:
    row = driver_sql(tx.connection, _FIND, (key.principal, key.request_id)).fetchone()
    if row is None:
        return None
    method, fingerprint, answer = row
    if (method, bytes(fingerprint)) != (key.method, key.fingerprint):
        raise ServiceError(
            Reason.REQUEST_ID_REUSED,
            "this request_id was used for another request; make a new one",
            request_id=key.request_id,
        )
    return bytes(answer)
