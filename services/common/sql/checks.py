"""What must be true of a service's database at any moment: looked at, never touched.

Each service tells what its own tables must hold in a `checks_store.py`; what all of
them have is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from modelyard.auditing import Chain
from sqlalchemy.engine import Connection

from services.common.audit import store as audit


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be."""

    check: str
    subject: str
    problem: str


@contextmanager
def read_only(url: str) -> Iterator[Connection]:
    """Open a database for reading, as it is at one moment, whoever else has it open."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        # The file is opened for reading; a log that a killed process left is read with it.
        engine = sa.create_engine(f"sqlite:///file:{parsed.database}?mode=ro&uri=true")
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    else:
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def check_common(connection: Connection, service: str) -> Iterator[Finding]:
    """Check what every service's database has."""
    yield from _sound_file(connection)
    yield from _audit_chain(connection, service)
    present = set(sa.inspect(connection).get_table_names())
    if "events" in present:
        yield from _ledgers(connection)
    if "answers" in present:
        yield from _answers(connection)


def rows(connection: Connection, sql: str) -> Iterable[sa.Row[tuple[object, ...]]]:
    """Read what a query of a service's own finds."""
    return connection.execute(sa.text(sql))


def _sound_file(connection: Connection) -> Iterator[Finding]:
    if connection.dialect.name != "sqlite":
        return
    for (verdict,) in rows(connection, "PRAGMA integrity_check(20)"):
        if verdict != "ok":
            yield Finding("database", "file", str(verdict))
    for table, _, other, _ in rows(connection, "PRAGMA foreign_key_check"):
        yield Finding("database", str(table), f"refers to what is not in {other}")


def _audit_chain(connection: Connection, service: str) -> Iterator[Finding]:
    chain = Chain(service)
    for sealed in audit.every_entry(connection):
        chain.add(audit.fields(service, sealed.sequence, sealed.entry), sealed.hash)
    chain.end(audit.find_head(connection))
    for problem in chain.problems:
        yield Finding("audit", service, problem)


def _ledgers(connection: Connection) -> Iterator[Finding]:
    """A ledger has no gap, ends where its counter says, and keeps its newest event."""
    found = rows(
        connection,
        "SELECT c.topic, c.sequence, count(e.sequence), min(e.sequence), max(e.sequence)"
        " FROM event_counters c LEFT JOIN events e ON e.topic = c.topic"
        " GROUP BY c.topic, c.sequence",
    )
    for topic, last, count, first, newest in found:
        if newest != last:
            yield Finding("ledger", str(topic), f"ends at {newest}, its counter says {last}")
        elif count != newest - first + 1:
            yield Finding("ledger", str(topic), f"{first} to {newest} are only {count} events")
    lost = rows(
        connection,
        "SELECT DISTINCT topic FROM events WHERE topic NOT IN (SELECT topic FROM event_counters)",
    )
    for (topic,) in lost:
        yield Finding("ledger", str(topic), "has events and no counter")


def _answers(connection: Connection) -> Iterator[Finding]:
    found = rows(
        connection,
        "SELECT principal, request_id, count(*), min(length(answer)) FROM answers"
        " GROUP BY principal, request_id HAVING count(*) > 1 OR min(length(answer)) = 0",
    )
    for principal, request_id, count, _ in found:
        problem = "was answered twice" if int(str(count)) > 1 else "was claimed and never answered"
        yield Finding("request ids", f"{principal} {request_id}", problem)
