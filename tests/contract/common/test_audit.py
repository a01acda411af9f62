"""The audit chain on every database: sealed once, and whatever is done to it is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from modelyard.auditing import Chain, Head

from services.common.audit import entries as audit
from services.common.audit import store
from services.common.audit import trail as trailing
from services.common.audit.entries import Entry, Sealed, add_entries, new_entry
from services.common.audit.noting import Note, leave_note
from services.common.audit.trail import GATHERED, Trail
from services.common.errors import ServiceError
from services.common.sql.database import Database

SEED = 20_261_128
TAMPERINGS = 100
OTHER = bytes(range(32))


def entry(number: int, outcome: str = "OK") -> Entry:
    return new_entry(
        actor=f"user:{number % 3}",
        delegation="",
        method="modelyard.metadata.v1.ModelService/CreateModel",
        resource=f"projects/p/models/m{number}",
        request_id=f"r-{number}",
        outcome=outcome,
    )


async def write(database: Database, *entries: Entry) -> None:
    await database.write(lambda tx: add_entries(tx.connection, entries))


def verified(connection: sa.Connection, known: Head | None = None) -> Chain:
    """Read the chain as a verifier does."""
    chain = Chain("metadata", known=known or Head())
    for one in store.every_entry(connection):
        chain.add(store.fields("metadata", one.sequence, one.entry), one.hash)
    chain.end(store.find_head(connection))
    return chain


async def test_entries_are_sealed_once_whoever_seals(database: Database) -> None:
    trails = [Trail(database=database, service="metadata") for _ in range(3)]
    await write(database, *(entry(number) for number in range(1_200)))
    await asyncio.gather(*(trail.settle() for trail in trails))
    chain = await database.read(lambda tx: verified(tx.connection))
    assert (chain.problems, chain.head.sequence) == ([], 1_200)
    page = await trails[0].list_entries(where="", order="", size=1, token="")
    assert page.entries[0].sequence == 1_200
    assert page.head == chain.head


async def test_the_trail_is_filtered_and_read_page_by_page(database: Database) -> None:
    trail = Trail(database=database, service="metadata")
    await write(database, *(entry(number) for number in range(20)))
    await write(database, entry(20, "RIGHT_MISSING"))
    await trail.settle()
    where = 'actor = "user:1" AND resource : "models/m1" AND outcome = "OK"'
    found: list[int] = []
    token = ""
    while True:
        page = await trail.list_entries(where=where, order="sequence", size=2, token=token)
        found += [sealed.sequence for sealed in page.entries]
        token = page.next_token
        if not token:
            break
    assert found == [2, 11, 14, 17, 20]
    late = await trail.list_entries(
        where='time > "2020-01-01T00:00:00Z" AND outcome != "OK"', order="", size=9, token=""
    )
    assert [sealed.sequence for sealed in late.entries] == [21]
    for wrong in ('colour = "red"', "time > 3"):
        with pytest.raises(ServiceError):
            await trail.list_entries(where=wrong, order="", size=9, token="")


async def test_refusals_are_counted_so_that_they_fill_nothing(database: Database) -> None:
    trail = Trail(database=database, service="metadata")
    nameless = new_entry(
        actor="", delegation="", method="m", resource="a\0b", request_id="", outcome="INVALID_NAME"
    )
    for number in range(3 * GATHERED):
        trail.gather(entry(number, "RIGHT_MISSING"))
        trail.gather(nameless)
    await trail.settle()
    chain = await database.read(lambda tx: verified(tx.connection))
    assert chain.problems == []
    assert chain.head.sequence <= GATHERED + 2
    page = await trail.list_entries(where="", order="", size=2 * GATHERED, token="")
    assert sum(sealed.entry.count for sealed in page.entries) == 6 * GATHERED


@pytest.mark.parametrize("turns", range(6))
async def test_a_trail_ends_when_it_is_told_to_in_the_moment_of_a_write(
    database: Database, turns: int
) -> None:
    trail = Trail(database=database, service="metadata")
    running = asyncio.create_task(trail.run())
    await asyncio.sleep(0.2)  # it waits
    trail.gather(entry(1, "RIGHT_MISSING"))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=5)
    assert running.cancelled()


async def test_what_is_recorded_is_sealed_at_once_and_nothing_is_asked_at_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = asyncio.Queue[None]()
    monkeypatch.setattr(trailing, "SEAL_SECONDS", 0.01)
    monkeypatch.setattr(store, "is_waiting", _telling(store.is_waiting, looks))
    trail = Trail(database=database, service="metadata")
    running = asyncio.create_task(trail.run())
    await looks.get()  # what was there before
    leave_note(Note(lambda made, outcome: entry(1, outcome)))
    await database.write(lambda tx: None)
    leave_note(None)
    await looks.get()
    await looks.get()  # there is no more
    trail.gather(entry(2, "RIGHT_MISSING"))
    await looks.get()
    await looks.get()
    chain = await database.read(lambda tx: verified(tx.connection))
    assert (chain.problems, chain.head.sequence) == ([], 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(looks.get(), 10 * trailing.SEAL_SECONDS)
    # What another process left is found without being told, but not so soon.
    monkeypatch.setattr(trailing, "LOOK_SECONDS", 0.01)
    trail.gather(entry(3, "RIGHT_MISSING"))
    await write(database, entry(4))
    while (await database.read(lambda tx: verified(tx.connection))).head.sequence < 4:
        await looks.get()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _telling(
    is_waiting: Callable[[sa.Connection], bool], looks: asyncio.Queue[None]
) -> Callable[[sa.Connection], bool]:
    loop = asyncio.get_running_loop()

    def told(connection: sa.Connection) -> bool:
        found = is_waiting(connection)
        loop.call_soon_threadsafe(looks.put_nowait, None)
        return found

    return told


async def test_a_hundred_random_tamperings_are_found(database: Database, engine: sa.Engine) -> None:
    trail = Trail(database=database, service="metadata")
    await write(database, *(entry(number) for number in range(40)))
    await trail.settle()
    dice = random.Random(SEED)  # noqa: S311 - the same hundred each time
    with engine.connect() as connection:
        known = verified(connection).head
        connection.rollback()
        missed = []
        for number in range(TAMPERINGS):
            tamper = dice.choice(TAMPERS)
            with connection.begin() as transaction:
                tamper(connection, dice)
                if not verified(connection, known).problems:
                    missed.append((number, tamper.__name__))
                transaction.rollback()
        assert missed == []
        assert verified(connection, known).problems == []


def edit(connection: sa.Connection, dice: random.Random) -> None:
    column = dice.choice(["actor", "delegation", "method", "resource", "request_id", "outcome"])
    sql = f"UPDATE audit_entries SET {column} = 'x' WHERE sequence = :n"  # noqa: S608 - our own
    _run(connection, sql, _any(dice))


def backdate(connection: sa.Connection, dice: random.Random) -> None:
    column = dice.choice(["time_us", "count"])
    sql = f"UPDATE audit_entries SET {column} = {column} + 1 WHERE sequence = :n"  # noqa: S608
    _run(connection, sql, _any(dice))


def remove(connection: sa.Connection, dice: random.Random) -> None:
    _run(connection, "DELETE FROM audit_entries WHERE sequence = :n", _any(dice))


def remove_and_close_up(connection: sa.Connection, dice: random.Random) -> None:
    number = dice.randint(1, 39)
    _run(connection, "DELETE FROM audit_entries WHERE sequence = :n", number)
    for later in range(number + 1, 41):
        sql = "UPDATE audit_entries SET sequence = :n - 1 WHERE sequence = :n"
        _run(connection, sql, later)


def swap(connection: sa.Connection, dice: random.Random) -> None:
    first, second = dice.sample(range(1, 41), 2)
    for old, new in ((first, 99), (second, first), (99, second)):
        connection.execute(
            sa.text("UPDATE audit_entries SET sequence = :new WHERE sequence = :old"),
            {"old": old, "new": new},
        )


def insert(connection: sa.Connection, dice: random.Random) -> None:
    sealed = Sealed(41, entry(7), OTHER)
    _put(connection, sealed)
    connection.execute(
        sa.text("UPDATE audit_head SET sequence = 41, hash = :hash"), {"hash": OTHER}
    )


def cut_the_tail(connection: sa.Connection, dice: random.Random) -> None:
    """Cut as one who knows how: the head is moved, too."""
    last = dice.randint(0, 39)
    _run(connection, "DELETE FROM audit_entries WHERE sequence > :n", last)
    found = connection.execute(
        sa.text("SELECT hash FROM audit_entries WHERE sequence = :n"), {"n": last}
    ).scalar()
    connection.execute(
        sa.text("UPDATE audit_head SET sequence = :n, hash = :hash"),
        {"n": last, "hash": found or bytes(32)},
    )


def write_anew(connection: sa.Connection, dice: random.Random) -> None:
    """Forge the whole chain with sound hashes, one entry being another."""
    entries = [sealed.entry for sealed in store.every_entry(connection)]
    entries[dice.randrange(40)] = entry(1_000)
    connection.execute(sa.text("DELETE FROM audit_entries"))
    connection.execute(sa.text("DELETE FROM audit_head"))
    add_entries(connection, entries)
    store.seal(connection, "metadata")


TAMPERS: list[Callable[[sa.Connection, random.Random], None]] = [
    *(edit, backdate, remove, remove_and_close_up),
    *(swap, insert, cut_the_tail, write_anew),
]


def _any(dice: random.Random) -> int:
    return dice.randint(1, 40)


def _run(connection: sa.Connection, sql: str, number: int) -> None:
    connection.execute(sa.text(sql), {"n": number})


def _put(connection: sa.Connection, sealed: Sealed) -> None:
    _, chain, _ = audit.tables(sa.MetaData())
    values = dict(zip(audit.COLUMNS, audit.row_of(sealed.entry), strict=True))
    connection.execute(chain.insert(), {"sequence": 41, "hash": sealed.hash, **values})
