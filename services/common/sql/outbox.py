"""The outbox: per topic a ledger of events, written with the change they tell of.

An event's sequence is allotted in commit order: its topic's counter row is
locked last in the transaction and until its end, so no reader can ever see
sequence 8 and later a 7. The database is the ledger; Redis only carries.

A ledger has no gaps, and its newest event is never trimmed: so what is left of
it says by itself up to where it was trimmed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.driver_sql import driver_sql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Return a moment as databases keep it: microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(time_us: int) -> datetime:
    """Return the moment that databases keep as so many microseconds."""
    return EPOCH + timedelta(microseconds=time_us)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a topic's ledger."""

    topic: str
    sequence: int
    time: datetime
    kind: str
    payload: bytes


def tables(metadata: sa.MetaData) -> tuple[sa.Table, sa.Table]:
    """Define the outbox's tables in a service's own schema."""
    counters = sa.Table(
        "event_counters",
        metadata,
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    events = sa.Table(
        "events",
        metadata,
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    return counters, events


_COUNTERS, _EVENTS = tables(sa.MetaData())

_INSERT = "INSERT INTO events (topic, sequence, time_us, kind, payload) VALUES (?, ?, ?, ?, ?)"
_ADVANCE = (
    "INSERT INTO event_counters (topic, sequence) VALUES (?, ?)"
    " ON CONFLICT (topic) DO UPDATE SET sequence = event_counters.sequence + excluded.sequence"
    " RETURNING sequence"
)


def append(connection: Connection, entries: Sequence[tuple[str, str, bytes]]) -> list[Event]:
    """Append (topic, kind, payload) entries; must be the last thing a transaction does."""
    now = datetime.now(UTC)
    events: list[Event] = []
    # Topics are locked in one order, so that two transactions cannot deadlock.
    for topic in sorted({topic for topic, _, _ in entries}):
        own = [(kind, payload) for t, kind, payload in entries if t == topic]
        (last,) = driver_sql(connection, _ADVANCE, (topic, len(own))).fetchone()
        first = last - len(own) + 1
        events += [
            Event(topic, first + index, now, kind, payload)
            for index, (kind, payload) in enumerate(own)
        ]
    if events:
        driver_sql(connection, _INSERT, [_row(event) for event in events])
    return events


def read_events(connection: Connection, topic: str, after: int, limit: int = 100) -> list[Event]:
    """Read a topic's events after a sequence, in order."""
    query = (
        sa.select(_EVENTS)
        .where(_EVENTS.c.topic == topic, _EVENTS.c.sequence > after)
        .order_by(_EVENTS.c.sequence)
        .limit(limit)
    )
    return [
        Event(row.topic, row.sequence, moment(row.time_us), row.kind, row.payload)
        for row in connection.execute(query)
    ]


def first_sequence(connection: Connection, topic: str) -> int:
    """Return the sequence of a topic's oldest event that is kept; 0 when it has none."""
    query = sa.select(sa.func.min(_EVENTS.c.sequence)).where(_EVENTS.c.topic == topic)
    return connection.execute(query).scalar() or 0


def last_sequence(connection: Connection, topic: str) -> int:
    """Return the sequence of a topic's newest event; 0 when it has none."""
    sql = "SELECT sequence FROM event_counters WHERE topic = ?"
    row = driver_sql(connection, sql, (topic,)).fetchone()
    return 0 if row is None else int(row[0])


def topics(connection: Connection) -> list[str]:
    """Return every topic that ever had an event."""
    return list(connection.execute(sa.select(_COUNTERS.c.topic)).scalars())


def trim(
    connection: Connection,
    topic: str,
    *,
    before: datetime,
    keep: int,
    until: int | None = None,
    limit: int = 500,
) -> int:
    """Forget a topic's oldest events, at most `limit` of them; return how many.

    Those of `before` or later stay, those after the sequence `until`, and the newest
    `keep`; at least one does.
    """
    newest = last_sequence(connection, topic) - max(keep, 1)
    newest = newest if until is None else min(newest, until)
    oldest = (
        sa.select(_EVENTS.c.sequence, _EVENTS.c.time_us)
        .where(_EVENTS.c.topic == topic, _EVENTS.c.sequence <= newest)
        .order_by(_EVENTS.c.sequence)
        .limit(limit)
    )
    # From the front without a hole, although clocks of replicas may differ.
    old = itertools.takewhile(lambda row: moment(row.time_us) < before, connection.execute(oldest))
    last = max((row.sequence for row in old), default=0)
    trimmed = sa.and_(_EVENTS.c.topic == topic, _EVENTS.c.sequence <= last)
    return connection.execute(_EVENTS.delete().where(trimmed)).rowcount if last else 0


def _row(event: Event) -> tuple[object, ...]:
    return (event.topic, event.sequence, microseconds(event.time), event.kind, event.payload)
