"""A write is done once per request id, however often and at once it is asked for."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from services.common.errors import Reason, ServiceError
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from tests.contract.common.conftest import ROWS

KEY = Key("user:ada", "6f1c0d2e-0000-4000-8000-000000000001", "/p.S/Create", b"payload")


@dataclass(frozen=True, slots=True)
class Answer:
    row: str
    time: datetime
    number: float
    data: bytes


def _create(tx: Transaction, row: str, key: Key | None = KEY) -> Answer:
    def work() -> Answer:
        tx.connection.execute(ROWS.insert().values(id=row))
        return Answer(row, datetime(2026, 1, 31, 1, 2, 3, 4, tzinfo=UTC), math.inf, b"\0\xff")

    return once(tx, key, Answer, work)


async def _rows(database: Database) -> int:
    query = sa.select(sa.func.count()).select_from(ROWS)
    return await database.read(lambda tx: tx.connection.execute(query).scalar_one())


async def test_a_repeat_gets_the_first_answer(database: Database) -> None:
    first = await database.write(lambda tx: _create(tx, "a"))
    assert await database.write(lambda tx: _create(tx, "a")) == first
    assert await database.write(lambda tx: _create(tx, "b")) == first
    assert await _rows(database) == 1


async def test_repeats_at_once_do_the_work_once(database: Database) -> None:
    answers = await asyncio.gather(
        *(database.write(lambda tx: _create(tx, "a")) for _ in range(16))
    )
    assert len(set(answers)) == 1
    assert await _rows(database) == 1


@pytest.mark.parametrize(
    "other", [replace(KEY, fingerprint=b"other"), replace(KEY, method="/p.S/Delete")]
)
async def test_reuse_is_refused(database: Database, other: Key) -> None:
    await database.write(lambda tx: _create(tx, "a"))
    with pytest.raises(ServiceError) as caught:
        await database.write(lambda tx: _create(tx, "b", other))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    assert caught.value.metadata == {"request_id": KEY.request_id}
    assert await _rows(database) == 1


async def test_ids_belong_to_their_principals(database: Database) -> None:
    await database.write(lambda tx: _create(tx, "a"))
    bob = replace(KEY, principal="user:bob")
    assert (await database.write(lambda tx: _create(tx, "b", bob))).row == "b"


async def test_a_failed_write_leaves_the_id_free(database: Database) -> None:
    await database.write(lambda tx: _create(tx, "a", None))
    with pytest.raises(sa.exc.IntegrityError):
        await database.write(lambda tx: _create(tx, "a"))
    assert (await database.write(lambda tx: _create(tx, "b"))).row == "b"


async def test_without_a_key_every_write_is_done(database: Database) -> None:
    await database.write(lambda tx: _create(tx, "a", None))
    await database.write(lambda tx: _create(tx, "b", None))
    assert await _rows(database) == 2
