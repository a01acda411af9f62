"""A bound on how long a query of a user's making may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import Connection

from services.common.errors import Reason, ServiceError

_CANCELLED = "57014"
_STEPS = 20_000
"""So many steps of SQLite's machine pass between two looks at the clock: about a millisecond."""


@contextmanager
def bounded(connection: Connection, seconds: float) -> Iterator[None]:
    """Stop the queries of a block once they take longer than some seconds.

    Raises:
        ServiceError: LIMIT_EXCEEDED when they do.
    """
    try:
        with _timeout(connection, seconds):
            yield
    except sa.exc.OperationalError as error:
        interrupted = str(error.orig) == "interrupted"
        if not interrupted and getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        message = (
            f"the search took longer than {seconds:g} s; narrow it down by a condition that few"
            " rows meet, or search one model"
        )
        raise ServiceError(
            Reason.LIMIT_EXCEEDED, message, limit="query_seconds", maximum=f"{seconds:g}"
        ) from error


@contextmanager
def _timeout(connection: Connection, seconds: float) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        # For the session: a read need not be in a transaction.
        milliseconds = str(max(1, int(seconds * 1000)))
        change = "SELECT set_config('statement_timeout', %s, false)"
        connection.exec_driver_sql(change, (milliseconds,))
        try:
            yield
        finally:
            # A transaction whose statement was stopped takes no more of them.
            if driver.info.transaction_status == TransactionStatus.INERROR:
                connection.rollback()
            connection.exec_driver_sql(change, ("0",))
        return
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
