"""Writes are isolated, ordered and exact, on every database."""

from __future__ import annotations

import asyncio
import functools
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from services.common.errors import Reason, ServiceError
from services.common.sql import engines
from services.common.sql.database import Database, Transaction
from services.common.sql.engines import driver_of
from services.common.sql.outbox import Event, read_events
from tests.contract.common.conftest import ROWS


def _insert(tx: Transaction, row: str) -> str:
    tx.connection.execute(ROWS.insert().values(id=row))
    return row


def _read(tx: Transaction, topic: str, after: int) -> list[Event]:
    return read_events(tx.connection, topic, after, 1000)


async def _ids(database: Database) -> set[str]:
    query = sa.select(ROWS.c.id)
    return await database.read(lambda tx: set(tx.connection.execute(query).scalars()))


async def test_waiting_writes_share_commits(database: Database, engine: sa.Engine) -> None:
    commits: list[object] = []
    sa.event.listen(engine, "commit", commits.append)
    rows = [f"r{n}" for n in range(200)]
    writes = (database.write(functools.partial(_insert, row=row), locks=row) for row in rows)
    assert await asyncio.gather(*writes) == rows
    assert await _ids(database) == set(rows)
    assert len(commits) < 100


@pytest.mark.parametrize("locks", ["", "a row"])
async def test_a_failing_write_harms_no_other(database: Database, locks: str) -> None:
    def refuse(tx: Transaction) -> None:
        _insert(tx, "refused")
        tx.publish("t", "refused")
        raise ServiceError(Reason.WRONG_STATE, "no")

    def repeat(tx: Transaction) -> None:
        _insert(tx, "twice")
        tx.publish("t", "repeated")
        _insert(tx, "twice")

    def good(tx: Transaction, row: str) -> None:
        _insert(tx, row)
        tx.publish("t", "good")

    works: list[Callable[[Transaction], None]] = []
    for n in range(30):
        works += [refuse, functools.partial(good, row=f"g{n}"), repeat]
    writes = [database.write(work, locks=locks) for work in works]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results[:3]] == [
        ServiceError,
        type(None),
        sa.exc.IntegrityError,
    ]
    assert await _ids(database) == {f"g{n}" for n in range(30)}
    events = await database.read(lambda tx: read_events(tx.connection, "t", 0))
    assert [(event.sequence, event.kind) for event in events] == [(n, "good") for n in range(1, 31)]


async def test_readers_see_sequences_in_order_without_gaps(database: Database) -> None:
    writers, each, topics = 16, 25, ("a", "b")

    async def write(writer: int) -> None:
        for n in range(each):

            def work(tx: Transaction, n: int = n) -> None:
                # Either order of topics: ledgers must not deadlock.
                for topic in topics if (writer + n) % 2 else reversed(topics):
                    tx.publish(topic, "k", f"{writer}:{n}".encode())
                    tx.publish(topic, "k", b"second")

            await database.write(work)

    async def watch(topic: str) -> list[bytes]:
        seen: list[bytes] = []
        while len(seen) < writers * each * 2:
            after = len(seen)
            events = await database.read(functools.partial(_read, topic=topic, after=after))
            assert [e.sequence for e in events] == list(range(after + 1, after + 1 + len(events)))
            seen += [event.payload for event in events]
        return seen

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(watch(topic)) for topic in topics]
        for writer in range(writers):
            tasks.create_task(write(writer))
    expected = {f"{writer}:{n}".encode() for writer in range(writers) for n in range(each)}
    for watcher in watchers:
        seen = watcher.result()
        assert set(seen[::2]) == expected
        assert set(seen[1::2]) == {b"second"}


async def test_listeners_hear_of_committed_events_only(database: Database) -> None:
    heard: list[tuple[int, bytes]] = []
    database.on_commit(lambda events: heard.extend((e.sequence, e.payload) for e in events))
    await database.write(lambda tx: tx.publish("t", "k", b"one"))

    def fail(tx: Transaction) -> None:
        tx.publish("t", "k", b"lost")
        raise ServiceError(Reason.WRONG_STATE, "no")

    with pytest.raises(ServiceError):
        await database.write(fail)
    await database.write(lambda tx: tx.publish("t", "k", b"two"))
    assert heard == [(1, b"one"), (2, b"two")]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 1, 31, 12, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
    ids=str,
)
async def test_moments_are_kept_to_the_microsecond(database: Database, moment: datetime) -> None:
    await database.write(
        lambda tx: tx.connection.execute(ROWS.insert().values(id="x", time=moment)).rowcount
    )
    query = sa.select(ROWS.c.time).where(ROWS.c.time == moment)
    found = await database.read(lambda tx: tx.connection.execute(query).scalar_one())
    assert (found, found.tzinfo) == (moment, UTC)


@pytest.mark.parametrize(
    "number",
    [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1, 2.0**53, 3.0],
    ids=repr,
)
async def test_doubles_are_kept_to_the_bit(database: Database, number: float) -> None:
    await database.write(
        lambda tx: tx.connection.execute(ROWS.insert().values(id="x", number=number)).rowcount
    )
    query = sa.select(ROWS.c.number)
    found = await database.read(lambda tx: tx.connection.execute(query).scalar_one())
    assert isinstance(found, float)
    assert struct.pack(">d", found) == struct.pack(">d", number)


async def test_bytes_and_text_are_kept(database: Database) -> None:
    data, text = bytes(range(256)), "ä💥' \"%_\\\n"
    await database.write(
        lambda tx: tx.connection.execute(ROWS.insert().values(id=text, data=data)).rowcount
    )
    row = await database.read(lambda tx: tx.connection.execute(sa.select(ROWS)).one())
    assert (row.id, bytes(row.data)) == (text, data)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("SET TRANSACTION READ ONLY", Reason.SERVICE_UNAVAILABLE),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$", Reason.LIMIT_EXCEEDED),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25P03'; END $$", Reason.SERVICE_UNAVAILABLE),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Reason.SERVICE_UNAVAILABLE),
    ],
)
async def test_what_befalls_postgresql_is_told_and_over(
    database: Database, harm: str, reason: Reason
) -> None:
    """By a standby, a full disk, a pause for too long, an administrator."""

    def work(tx: Transaction) -> str:
        tx.connection.exec_driver_sql(harm)
        return _insert(tx, "a")

    with pytest.raises(ServiceError) as told:
        await database.write(work)
    assert told.value.reason is reason
    assert await database.write(lambda tx: _insert(tx, "b")) == "b"
    assert await _ids(database) == {"b"}


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_connection_cut_as_soon_as_it_is_made_is_told(
    database: Database, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as what stands in for one that was cut while it rested."""
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.0)
    await database.write(lambda tx: _insert(tx, "a"))
    cut = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid")
    other = sa.create_engine(engine.url)

    def end(connection: Any, record: object = None) -> None:
        with other.connect() as administrator:
            administrator.execute(cut, {"pid": connection.info.backend_pid})

    with engine.connect() as resting:
        end(driver_of(resting))
    sa.event.listen(engine, "connect", end)
    with pytest.raises(ServiceError) as told:
        await database.write(lambda tx: _insert(tx, "b"))
    assert told.value.reason is Reason.SERVICE_UNAVAILABLE
    sa.event.remove(engine, "connect", end)
    other.dispose()
    await database.write(lambda tx: _insert(tx, "c"))
    assert await _ids(database) == {"a", "c"}


async def test_a_cancelled_caller_stops_nobody(database: Database) -> None:
    task = asyncio.ensure_future(database.write(lambda tx: _insert(tx, "cancelled")))
    await asyncio.sleep(0)
    task.cancel()
    assert await database.write(lambda tx: _insert(tx, "after")) == "after"
    assert "after" in await _ids(database)
