"""Databases: SQLite or PostgreSQL, one way of using either.

A use case hands over a plain function of a transaction; it runs in a thread, in
one transaction, and its answer is returned once that is committed. On SQLite
one writer thread per file takes all writes that wait and commits them together,
a savepoint each, so that a failing one harms no other and the disk is asked to
sync once. On PostgreSQL writes are ordinary transactions, tried again when the
database refuses to serialise them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine

from services.common import outbox
from services.common.errors import Reason, ServiceError
from services.common.outbox import EPOCH

T = TypeVar("T")
Work = Callable[["Transaction"], T]
Listener = Callable[[list[outbox.Event]], None]

READERS = 4
ATTEMPTS = 5
BATCH = 256


class Timestamp(sa.types.TypeDecorator[datetime]):
    """Store an aware moment as microseconds since 1970, exactly, on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn a moment into microseconds."""
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Turn microseconds into a moment."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Double(sa.types.TypeDecorator[float]):
    """Store a double with NaN and infinities: SQLite itself would turn NaN into NULL."""

    impl = sa.Double
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Use a column without conversion on SQLite, which keeps text beside numbers."""
        return sa.BLOB() if dialect.name == "sqlite" else sa.Double()

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Replace NaN by the text `nan` on SQLite."""
        if dialect.name != "sqlite":
            return None
        return lambda value: "nan" if value is not None and value != value else value  # noqa: PLR0124

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Replace the text `nan` by NaN."""
        if dialect.name != "sqlite":
            return None
        return lambda value: None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction: a connection, and the events to be published with it."""

    connection: Connection
    events: list[tuple[str, str, bytes]]

    def publish(self, topic: str, kind: str, payload: bytes = b"") -> None:
        """Append an event to a topic's ledger, in this transaction."""
        self.events.append((topic, kind, payload))


class Database:
    """A service's own database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-read")
        self._writer = _CoalescingWriter(engine) if _is_sqlite(engine) else _PooledWriter(engine)
        self._listeners: list[Listener] = []

    @classmethod
    def open(cls, url: str, *, migrations: Path) -> Database:
        """Open a database, e.g. `sqlite:////data/metadata.db` or `postgresql://…`.

        A SQLite file is locked against a second process and migrated at once; a
        PostgreSQL database must have been migrated (`modelyard migrate`).
        """
        engine = create_engine(url)
        if _is_sqlite(engine):
            migrate(engine, migrations)
        return cls(engine)

    def on_commit(self, listener: Listener) -> None:
        """Call a function, in the event loop, with the events of each commit."""
        self._listeners.append(listener)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a read transaction and return its answer."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a write transaction; return its answer once committed.

        The function may run more than once, so it must do nothing but SQL.
        """
        answer, events = await asyncio.wrap_future(self._writer.submit(work))
        if events:
            for listener in self._listeners:
                listener(events)
        return answer  # type: ignore[no-any-return]  # the future carries what work returned

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        await self.read(lambda tx: tx.connection.execute(sa.text("SELECT 1")).scalar())

    def close(self) -> None:
        """Finish waiting writes and close every connection."""
        self._writer.close()
        self._readers.shutdown()
        self._engine.dispose()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        with _translated(), self._engine.connect() as connection:
            return work(Transaction(connection, []))


class _CoalescingWriter:
    """The one writer of a SQLite file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="database-write", daemon=True)
        self._thread.start()

    def submit(self, work: Work[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.put((work, future))
        return future

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while (first := self._waiting.get()) is not None:
                batch = [first, *self._more()]
                self._commit(connection, [item for item in batch if item is not None])
                if None in batch:
                    return

    def _more(self) -> Iterator[tuple[Work[Any], Future[Any]] | None]:
        for _ in range(BATCH):
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _commit(self, connection: Connection, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        batch = [item for item in batch if item[1].set_running_or_notify_cancel()]
        done: list[tuple[Future[Any], Any]] = []
        try:
            with _translated(), connection.begin():
                for work, future in batch:
                    _settle(connection, work, future, done)
        except Exception as error:  # whatever failed the commit fails each of its writes
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in done:
            future.set_result(answer)


def _settle(
    connection: Connection,
    work: Work[Any],
    future: Future[Any],
    done: list[tuple[Future[Any], Any]],
) -> None:
    """Run one write in a savepoint; its failure is its own."""
    try:
        with _translated(), connection.begin_nested():
            answer = _perform(connection, work)
        done.append((future, answer))
    except Exception as error:  # handed to whoever asked for the write
        future.set_exception(error)


class _PooledWriter:
    """Writers of a PostgreSQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(
            engine.pool.size(),  # type: ignore[attr-defined]  # a QueuePool
            thread_name_prefix="database-write",
        )

    def submit(self, work: Work[Any]) -> Future[Any]:
        return self._threads.submit(self._write, work)

    def close(self) -> None:
        self._threads.shutdown()

    def _write(self, work: Work[Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                with _translated(), self._engine.begin() as connection:
                    return _perform(connection, work)
            except _ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError


def _perform(connection: Connection, work: Work[Any]) -> tuple[Any, list[outbox.Event]]:
    """Run a write and, last, allot its events their places in their ledgers."""
    transaction = Transaction(connection, [])
    answer = work(transaction)
    return answer, outbox.append(connection, transaction.events)


class _ConflictError(ServiceError):
    """The database could not serialise a transaction; doing it again may help."""


@contextmanager
def _translated() -> Iterator[None]:
    """Turn a database's failure into one the caller may see."""
    try:
        yield
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) in ("40001", "40P01"):
            message = "the database is busy; retry"
            raise _ConflictError(Reason.SERVICE_UNAVAILABLE, message) from error
        if "disk is full" in str(error.orig):
            message = "the database's disk is full"
            raise ServiceError(Reason.LIMIT_EXCEEDED, message, limit="disk", maximum="") from error
        raise ServiceError(Reason.SERVICE_UNAVAILABLE, "the database does not answer") from error


def create_engine(url: str) -> Engine:
    """Make an engine with the settings every service's database has."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=4,
            pool_pre_ping=True,
            connect_args={"options": "-c timezone=UTC"},
        )
    path = Path(parsed.database or "")
    _lock(path)
    engine = sa.create_engine(
        parsed, connect_args={"timeout": 30}, pool_size=READERS + 1, max_overflow=2
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


_LOCKS: dict[Path, int] = {}


def _lock(path: Path) -> None:
    """Claim a SQLite file for this process: two would not see each other's writer."""
    lock = path.with_suffix(path.suffix + ".lock").resolve()
    if lock in _LOCKS:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RuntimeError(f"{path} is in use by another process") from None
    _LOCKS[lock] = descriptor


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: savepoints need ours.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def migrate(engine: Engine, migrations: Path) -> None:
    """Bring a database to the newest revision of an Alembic folder."""
    from alembic import command  # noqa: PLC0415 - only start-up and `migrate` need it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
