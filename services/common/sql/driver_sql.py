"""SQL as the driver takes it, for what every write does: there SQLAlchemy would cost the most."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from sqlalchemy.engine import Connection

from services.common.sql.engines import driver_of

Parameters = tuple[Any, ...] | list[tuple[Any, ...]]
Statement = tuple[str, Parameters]


class Cursor(Protocol):
    """What a driver answers with; its rows are plain tuples."""

    @property
    def rowcount(self) -> int:
        """Return how many rows were written."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; None when there is none."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


def driver_sql(connection: Connection, sql: str, parameters: Parameters) -> Cursor:
    """Run SQL with `?` for each value, values as the driver takes them; a list runs it for each."""
    if not connection.in_transaction():
        connection.begin()
    if connection.dialect.name == "postgresql":
        sql = _as_psycopg(sql)
    cursor: Any = driver_of(connection).cursor()
    if isinstance(parameters, list):
        cursor.executemany(sql, parameters)
    else:
        cursor.execute(sql, parameters)
    return cursor  # type: ignore[no-any-return]  # as both drivers have it


@functools.lru_cache(1_000)
def _as_psycopg(sql: str) -> str:
    return sql.replace("?", "%s")


def run_together(connection: Connection, statements: Sequence[Statement]) -> None:
    """Run writes that touch different rows; on PostgreSQL as one statement, in one round trip."""
    single = [parameters for _, parameters in statements if isinstance(parameters, tuple)]
    if connection.dialect.name != "postgresql" or len(single) != len(statements) or not single:
        for sql, parameters in statements:
            driver_sql(connection, sql, parameters)
        return
    texts = [sql for sql, _ in statements]
    parts = ", ".join(f"part_{number} AS ({sql})" for number, sql in enumerate(texts[:-1]))
    whole = f"WITH {parts} {texts[-1]}" if parts else texts[-1]
    driver_sql(connection, whole, tuple(itertools.chain.from_iterable(single)))
