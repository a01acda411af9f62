"""Idempotent writes: a request id's first answer, stored with the write itself.

The same id with the same payload gets the first answer again; with another
payload it is refused. Answers are kept per principal, so that nobody can read
another's by guessing an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from services.common.database import Timestamp, Transaction
from services.common.errors import Reason, ServiceError

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


_ANSWERS = table(sa.MetaData())
# Built once: building a statement costs several times what running it does.
_INSERT = _ANSWERS.insert()
_FIND = sa.select(_ANSWERS.c.method, _ANSWERS.c.fingerprint, _ANSWERS.c.answer).where(
    _ANSWERS.c.principal == sa.bindparam("who"), _ANSWERS.c.request_id == sa.bindparam("request")
)
_LOCK = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger)))


def once(tx: Transaction, key: Key | None, kind: type[T], work: Callable[[], T]) -> T:
    """Do a write once per key; a repeat gets the first answer, a dataclass of `kind`.

    Raises:
        ServiceError: REQUEST_ID_REUSED when the id came with another payload.
    """
    if key is None:
        return work()
    _claim(tx, key)
    stored = _find(tx, key)
    if stored is not None:
        return msgspec.msgpack.decode(stored, type=kind)
    answer = work()
    tx.connection.execute(
        _INSERT,
        {
            "principal": key.principal,
            "request_id": key.request_id,
            "method": key.method,
            "fingerprint": key.fingerprint,
            "answer": msgspec.msgpack.encode(answer),
            "create_time": datetime.now(UTC),
        },
    )
    return answer


def answered(tx: Transaction, key: Key | None, kind: type[T]) -> T | None:
    """Return the first answer to a repeated write, before anything is asked of other services."""
    stored = None if key is None else _find(tx, key)
    return None if stored is None else msgspec.msgpack.decode(stored, type=kind)


def _claim(tx: Transaction, key: Key) -> None:
    """Let two writes of one key pass one after the other; on SQLite all writes do."""
    if tx.connection.dialect.name == "postgresql":
        text = f"{key.principal}\0{key.request_id}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)
        tx.connection.execute(_LOCK, {"number": number})


def _find(tx: Transaction, key: Key) -> bytes | None:
    names = {"who": key.principal, "request": key.request_id}
    row = tx.connection.execute(_FIND, names).first()
    if row is None:
        return None
    if (row.method, row.fingerprint) != (key.method, key.fingerprint):
        raise ServiceError(
            Reason.REQUEST_ID_REUSED,
            "this request_id was used for another request; make a new one",
            request_id=key.request_id,
        )
    return bytes(row.answer)
