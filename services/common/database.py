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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
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
IDLE_SECONDS = 1.0


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
        self._is_local = _is_sqlite(engine)
        # A statement of PostgreSQL sees one moment anyway: reads need no transaction there.
        self._reading = (
            engine if self._is_local else engine.execution_options(isolation_level="AUTOCOMMIT")
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-read")
        self._writer = _CoalescingWriter(engine) if self._is_local else _PooledWriter(engine)
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
        """Call a function, in the event loop, with the events of each commit.

        It is called before whoever wrote gets its answer.
        """
        self._listeners.append(listener)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a read transaction and return its answer."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    async def lookup(self, work: Callable[[Transaction], T]) -> T:
        """Run a read of a few rows by unique keys; return its answer.

        On SQLite it takes less time than handing it to a thread would, and no write makes
        it wait: it is done at once, in the event loop.
        """
        return self._read(work) if self._is_local else await self.read(work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a write transaction; return its answer once committed.

        The function may run more than once, so it must do nothing but SQL.
        """
        loop = asyncio.get_running_loop()
        write = Write(work, loop, loop.create_future(), self._listeners)
        self._writer.submit(write)
        return await write.future  # type: ignore[no-any-return]  # what work returned

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        await self.read(lambda tx: tx.connection.execute(sa.text("SELECT 1")).scalar())

    def close(self) -> None:
        """Finish waiting writes and close every connection."""
        self._writer.close()
        self._readers.shutdown()
        self._engine.dispose()

    def _read(self, work: Callable[[Transaction], T]) -> T:
        with _translated(), self._reading.connect() as connection:
            return work(Transaction(connection, []))


@dataclass(slots=True)
class Write:
    """A write that waits, and what became of it."""

    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    listeners: Sequence[Listener]
    answer: Any = None
    events: list[outbox.Event] = field(default_factory=list)
    error: Exception | None = None

    def deliver(self) -> None:
        """Tell the listeners and whoever waits; in the event loop."""
        if self.events and self.error is None:
            for listener in self.listeners:
                listener(self.events)
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)


def _deliver(writes: Sequence[Write]) -> None:
    """Hand a commit's writes back to their loops, each loop woken once: a wake-up is dear."""
    for loop in {write.loop for write in writes}:
        own = [write for write in writes if write.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_deliver_here, own)


def _deliver_here(writes: Sequence[Write]) -> None:
    for write in writes:
        write.deliver()


class _CoalescingWriter:
    """The one writer of a SQLite file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="database-write", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> None:
        self._waiting.put(write)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while (first := self._waiting.get()) is not None:
                batch = [first, *self._more()]
                writes = [write for write in batch if write and not write.future.cancelled()]
                if writes:
                    self._commit(connection, writes)
                    _deliver(writes)
                if None in batch:
                    return

    def _more(self) -> Iterator[Write | None]:
        for _ in range(BATCH):
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _commit(self, connection: Connection, batch: Sequence[Write]) -> None:
        """Run a batch's writes in one transaction; what fails the commit fails each of them."""
        try:
            with _translated(), connection.begin():
                if len(batch) == 1:
                    batch[0].answer, batch[0].events = _perform(connection, batch[0].work)
                else:
                    for write in batch:
                        _perform_apart(connection, write)
        except Exception as error:  # handed to whoever asked for the write
            for write in batch:
                write.error = write.error or error


def _perform_apart(connection: Connection, write: Write) -> None:
    """Run one write of several in a savepoint; its failure is its own."""
    # Statements of our own, not `begin_nested()`: that costs more than many a write does.
    driver = _driver(connection)
    driver.execute("SAVEPOINT one_write")
    try:
        with _translated():
            write.answer, write.events = _perform(connection, write.work)
    except Exception as error:  # handed to whoever asked for the write
        write.error = error
        driver.execute("ROLLBACK TO one_write")
    driver.execute("RELEASE one_write")


def _driver(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


class _PooledWriter:
    """Writers of a PostgreSQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(
            engine.pool.size(),  # type: ignore[attr-defined]  # a QueuePool
            thread_name_prefix="database-write",
        )

    def submit(self, write: Write) -> None:
        self._threads.submit(self._write, write)

    def close(self) -> None:
        self._threads.shutdown()

    def _write(self, write: Write) -> None:
        if write.future.cancelled():
            return
        try:
            write.answer, write.events = self._perform(write.work)
        except Exception as error:  # handed to whoever asked for the write
            write.error = error
        _deliver([write])

    def _perform(self, work: Work[Any]) -> tuple[Any, list[outbox.Event]]:
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
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=4,
            connect_args={"options": "-c timezone=UTC"},
        )
        sa.event.listen(engine, "checkin", _note_use)
        sa.event.listen(engine, "checkout", _ping_idle)
        return engine
    path = Path(parsed.database or "")
    _lock(path)
    engine = sa.create_engine(
        parsed, connect_args={"timeout": 30}, pool_size=READERS + 1, max_overflow=2
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    # Said to the driver itself: through SQLAlchemy it costs more than many a statement.
    sa.event.listen(engine, "begin", lambda connection: _driver(connection).execute("BEGIN"))
    return engine


def _note_use(_connection: object, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_idle(connection: Any, record: Any, _proxy: object) -> None:
    """Try a connection that has been idle for a while; asking each time costs a round trip."""
    if time.monotonic() - record.info.get("used", 0.0) < IDLE_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except _connection_errors() as error:
        raise sa.exc.DisconnectionError from error


def _connection_errors() -> tuple[type[Exception], ...]:
    """Return what the PostgreSQL driver raises when its server is gone."""
    import psycopg  # noqa: PLC0415 - SQLite needs none of it

    return (psycopg.OperationalError, psycopg.InterfaceError)


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
