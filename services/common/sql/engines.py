"""Engines: how every service's database is opened, and brought to its newest revision."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from services.common.safe_start import check_folder

READERS = 4
WRITERS = 8
IDLE_SECONDS = 1.0


# A process that is stopped in the middle of a transaction must not keep its locks from others.
_FROZEN = "-c idle_in_transaction_session_timeout=5s"
# A server that went without a word, as with its machine, is noticed within half a minute.
_SILENT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


def create_engine(url: str) -> Engine:
    """Make an engine with the settings every service's database has."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=WRITERS,
            max_overflow=READERS + 1,  # who writes for several has one, too: nobody ever waits
            connect_args={"options": f"-c timezone=UTC {_FROZEN}", **_SILENT},
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
    sa.event.listen(engine, "begin", lambda connection: driver_of(connection).execute("BEGIN"))
    return engine


def _note_use(_connection: object, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_idle(connection: Any, record: Any, _proxy: object) -> None:
    """Try a connection that has been idle for a while; asking each time costs a round trip.

    A new one is not tried: if it went already, too, its use says so, and here nothing would.
    """
    used = record.info.get("used")
    if used is None or time.monotonic() - used < IDLE_SECONDS:
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
    check_folder(path.parent)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)  # what SQLite puts beside it has its mode
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


def is_sqlite(engine: Engine) -> bool:
    """Say whether an engine's database is a SQLite file."""
    return engine.dialect.name == "sqlite"


def driver_of(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


def migrate(engine: Engine, migrations: Path) -> None:
    """Bring a database to the newest revision of an Alembic folder."""
    from alembic import command  # noqa: PLC0415 - only start-up and `migrate` need it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations))
    with engine.begin() as connection:
        if not is_sqlite(engine):  # a busy machine may be long about what comes next
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
