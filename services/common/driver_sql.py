"""SQL as the driver takes it, for what every write does: there SQLAlchemy would cost the most."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Parameters = tuple[Any, ...] | list[tuple[Any, ...]]
Statement = tuple[str, Parameters]


def driver_sql(connection: Connection, sql: str, parameters: Parameters) -> sa.CursorResult[Any]:
    """Run SQL with `?` for each value, values as the driver takes them; a list runs it for each."""
    if connection.dialect.name == "postgresql":
        sql = sql.replace("?", "%s")
    return connection.exec_driver_sql(sql, parameters)


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
