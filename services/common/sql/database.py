"""Databases: SQLite or PostgreSQL, one way of using either.

A use case hands over a plain function of a transaction; it runs in a thread, in
one transaction, and its answer is returned once that is committed. On SQLite
one writer thread per file takes all writes that wait and commits them together,
a savepoint each, so that a failing one harms no other and the disk is asked to
sync once. On PostgreSQL writes are ordinary transactions, tried again when the
database refuses to serialise them; those that say what they lock are committed
together there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine

from services.common.audit.entries import add_entries
from services.common.audit.noting import Note, take_note
from services.common.errors import Reason, ServiceError
from services.common.processes.disk_failure import note_disk_failure
from services.common.sql import outbox
from services.common.sql.engines import READERS, create_engine, driver_of, is_sqlite, migrate
from services.common.sql.outbox import microseconds, moment

T = TypeVar("T")
Work = Callable[["Transaction"], T]
Listener = Callable[[list[outbox.Event]], None]

ATTEMPTS = 5
BATCH = 256


class Timestamp(sa.types.TypeDecorator[datetime]):
    """Store an aware moment as microseconds since 1970, exactly, on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn a moment into microseconds."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Turn microseconds into a moment."""
        return None if value is None else moment(value)


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
        self._is_local = is_sqlite(engine)
        # A statement of PostgreSQL sees one moment anyway: reads need no transaction there.
        self._reading = (
            engine if self._is_local else engine.execution_options(isolation_level="AUTOCOMMIT")
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-read")
        self._writer = _CoalescingWriter(engine) if self._is_local else _PooledWriter(engine)
        self._listeners: list[Listener] = []
        self._recorded: list[Callable[[], None]] = []

    @classmethod
    def open(cls, url: str, *, migrations: Path) -> Database:
        """Open a database, e.g. `sqlite:////data/metadata.db` or `postgresql://…`.

        A SQLite file is locked against a second process and migrated at once; a
        PostgreSQL database must have been migrated (`modelyard migrate`).
        """
        engine = create_engine(url)
        if is_sqlite(engine):
            migrate(engine, migrations)
        return cls(engine)

    def on_commit(self, listener: Listener) -> None:
        """Call a function, in the event loop, with the events of each commit.

        It is called before whoever wrote gets its answer.
        """
        self._listeners.append(listener)

    def on_record(self, listener: Callable[[], None]) -> None:
        """Call a function, in the event loop, when a write has recorded the call that made it."""
        self._recorded.append(listener)

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

    async def write(self, work: Callable[[Transaction], T], *, locks: str = "") -> T:
        """Run a function in a write transaction; return its answer once committed.

        Args:
            work: the function; it may run more than once, so it must do nothing but SQL.
            locks: the resource whose rows are all that it locks. Then PostgreSQL, too, commits
                it together with others that wait, in the order of what they lock.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        note = take_note()
        write = Write(work, loop, future, self._listeners, locks, note, self._recorded)
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
    locks: str
    note: Note | None
    recorded: Sequence[Callable[[], None]]
    answer: Any = None
    told: list[tuple[str, str, bytes]] = field(default_factory=list)
    events: list[outbox.Event] = field(default_factory=list)
    error: Exception | None = None

    def perform(self, connection: Connection) -> None:
        """Do it, but for its events."""
        transaction = Transaction(connection, [])
        self.answer, self.told = self.work(transaction), transaction.events

    def deliver(self) -> None:
        """Tell the listeners and whoever waits; in the event loop."""
        if self.note is not None:
            self._account_for(self.note)
        if self.events and self.error is None:
            for listener in self.listeners:
                listener(self.events)
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)

    def _account_for(self, note: Note) -> None:
        if self.error is not None:
            note.give_back()
            return
        for listener in self.recorded:
            listener()


def _deliver(writes: Sequence[Write]) -> None:
    """Hand a commit's writes back to their loops, each loop woken once: a wake-up is dear."""
    for loop in {write.loop for write in writes}:
        own = [write for write in writes if write.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_deliver_here, own)


def _deliver_here(writes: Sequence[Write]) -> None:
    for write in writes:
        write.deliver()


def _gathered(waiting: queue.SimpleQueue[Write | None]) -> Iterator[list[Write]]:
    """Yield all writes that wait, whenever there are any, until None is found among them."""
    while (first := waiting.get()) is not None:
        batch: list[Write | None] = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH and batch[-1] is not None:
                batch.append(waiting.get_nowait())
        writes = [write for write in batch if write and not write.future.cancelled()]
        if writes:
            yield writes
        if batch[-1] is None:
            return


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
            for writes in _gathered(self._waiting):
                self._commit(connection, writes)
                _deliver(writes)

    def _commit(self, connection: Connection, batch: Sequence[Write]) -> None:
        """Run a batch's writes in one transaction; what fails the commit fails each of them."""
        try:
            with _translated(), connection.begin():
                if len(batch) == 1:
                    batch[0].perform(connection)
                else:
                    for write in batch:
                        _perform_apart(connection, write)
                _tell(connection, [write for write in batch if write.error is None])
        except Exception as error:  # handed to whoever asked for the write
            for write in batch:
                write.error = write.error or error


def _perform_apart(connection: Connection, write: Write) -> None:
    """Run one write of several in a savepoint; its failure is its own."""
    # Statements of our own, not `begin_nested()`: that costs more than many a write does.
    driver = driver_of(connection)
    driver.execute("SAVEPOINT one_write")
    try:
        with _translated():
            write.perform(connection)
    except Exception as error:  # handed to whoever asked for the write
        write.error = error
        driver.execute("ROLLBACK TO one_write")
    driver.execute("RELEASE one_write")


def _tell(connection: Connection, writes: Sequence[Write]) -> None:
    """Record the calls that write, allot events their places: the last thing before the commit.

    One statement a ledger, however many write to it; listeners hear of them with the first write.
    """
    noted = [write.note.entry(write.answer) for write in writes if write.note is not None]
    if noted:
        add_entries(connection, noted)
    if writes:
        told = [event for write in writes for event in write.told]
        writes[0].events = outbox.append(connection, told)


class _PooledWriter:
    """Writers of a PostgreSQL database: one for the writes that say what they lock, and more.

    Those of one project would wait for each other anyway, each from its place in the ledger
    to its own flush of the disk.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(
            engine.pool.size(),  # type: ignore[attr-defined]  # a QueuePool
            thread_name_prefix="database-write",
        )
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._sharing = threading.Thread(target=self._share, name="database-share", daemon=True)
        self._sharing.start()

    def submit(self, write: Write) -> None:
        if write.locks:
            self._waiting.put(write)
        else:
            self._threads.submit(self._write, write)

    def close(self) -> None:
        self._waiting.put(None)
        self._sharing.join()
        self._threads.shutdown()

    def _share(self) -> None:
        for writes in _gathered(self._waiting):
            if len(writes) == 1:
                self._write(writes[0])
            elif self._commit(writes):
                _deliver(writes)
            else:  # one of them fails: each is done again by itself
                for write in writes:
                    self._threads.submit(self._write, write)

    def _commit(self, writes: list[Write]) -> bool:
        """Run writes in one transaction; False when any failed, and then nothing was written."""
        # In one order, so that two processes cannot deadlock.
        writes.sort(key=lambda write: write.locks)
        try:
            with self._engine.begin() as connection:
                for write in writes:
                    write.perform(connection)
                _tell(connection, writes)
        except Exception:  # found out again, and then told, by whichever fails alone
            return False
        return True

    def _write(self, write: Write) -> None:
        if write.future.cancelled():
            return
        try:
            self._perform(write)
        except Exception as error:  # handed to whoever asked for the write
            write.error = error
        _deliver([write])

    def _perform(self, write: Write) -> None:
        for attempt in range(ATTEMPTS):
            try:
                with _translated(), self._engine.begin() as connection:
                    write.perform(connection)
                    _tell(connection, [write])
            except _ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return


class _ConflictError(ServiceError):
    """The database could not serialise a transaction; doing it again may help."""


# PostgreSQL's: a standby takes no writes; a transaction ended in which nothing was said for long,
# because one of the two was stopped.
_AWAY = ("25006", "25P03")
_CONFLICTS = ("40001", "40P01")
_FULL = "53100"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn a database's failure into one the caller may see."""
    try:
        yield
    except Exception as error:
        # SQLAlchemy's, or the driver's own where it was asked directly.
        origin = getattr(error, "orig", None) or error
        state = getattr(origin, "sqlstate", None)
        operational = any(kind.__name__ == "OperationalError" for kind in type(origin).__mro__)
        if not operational and state not in _AWAY:
            raise
        if state in _CONFLICTS:
            message = "the database is busy; retry"
            raise _ConflictError(Reason.SERVICE_UNAVAILABLE, message) from error
        if state == _FULL or "disk is full" in str(origin):
            message = "the database's disk is full"
            raise ServiceError(Reason.LIMIT_EXCEEDED, message, limit="disk", maximum="") from error
        if "disk I/O error" in str(origin):
            note_disk_failure()
        raise ServiceError(Reason.SERVICE_UNAVAILABLE, "the database does not answer") from error
