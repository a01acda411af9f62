"""SQL as the driver takes it, for what every write does: there SQLAlchemy would cost the most."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection


def driver_sql(
    connection: Connection, sql: str, parameters: tuple[Any, ...] | list[tuple[Any, ...]]
) -> sa.CursorResult[Any]:
    """Run SQL with `?` for each value, values as the driver takes them; a list runs it for each."""
    if connection.dialect.name == "postgresql":
        sql = sql.replace("?", "%s")
    return connection.exec_driver_sql(sql, parameters)
