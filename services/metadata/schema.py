"""The schema all of the service's tables hang on, and how its lists are paged.

Pages are keyset pages: a token carries the sort values of the last row sent, and
the next page begins after them. What has no value, NaN included, sorts last,
whatever the direction.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as psycopg_dialect
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite as sqlite_dialect
from sqlalchemy.engine import Connection, Row

from services.common.audit import entries as audit
from services.common.listing import pagination
from services.common.listing.filtering import FieldCompiler, flag_field, number_field, text_field
from services.common.listing.filtering import typed_field as compile_typed
from services.common.sql import idempotency, outbox
from services.common.sql.database import Double
from services.common.sql.driver_sql import driver_sql
from services.metadata.listing import Listing

METADATA = sa.MetaData()
outbox.tables(METADATA)
idempotency.table(METADATA)
audit.tables(METADATA)

BinaryText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that every database sorts alike, by code point."""
INDEXED = 200
"""So many characters of a parameter's text lie in an index."""
INFINITY: sa.ColumnElement[Any] = sa.literal(float("inf"), sa.Double())


def row_id(name: str = "pk") -> sa.Column[int]:
    """Define a rising row id of the database's own."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, primary_key=True, autoincrement=True)


def reference(name: str, target: str, *, primary_key: bool = False) -> sa.Column[int]:
    """Define a reference to another table's row id."""
    return sa.Column(
        name, sa.BigInteger, sa.ForeignKey(target), primary_key=primary_key, nullable=False
    )


def param_values() -> list[sa.Column[Any]]:
    """Define the columns of a parameter's value: as it is, and by type for filters."""
    return [
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("text_value", BinaryText),
        sa.Column("number_value", Double),
        sa.Column("flag_value", sa.Boolean),
    ]


def param_field(table: sa.Table) -> FieldCompiler:
    """Compile comparisons of a parameter's value by the literal's type."""
    return compile_typed(
        text=text_field(table.c.text_value),
        number=number_field(table.c.number_value),
        flag=flag_field(table.c.flag_value),
    )


def text_start(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return as much of a text as an index can hold of any."""
    # Spelled out, not bound: only then does a database know its index again.
    return sa.func.substr(column, sa.literal_column("1"), sa.literal_column(str(INDEXED)))


def index_params(name: str, table: sa.Table, *, owner: str) -> None:
    """Index parameters' values for searches in a model."""
    found = table.c
    sa.Index(f"{name}_number", found.model_pk, found.key, found.number_value, found[owner])
    sa.Index(f"{name}_text", found.model_pk, found.key, text_start(found.text_value), found[owner])


def insert_new(
    connection: Connection, table: sa.Table, conflict: Sequence[str], **values: Any
) -> Row[Any] | None:
    """Insert a row unless one with the same `conflict` columns exists; return it, or None."""
    statement = _insert_new(connection.dialect.name, table, tuple(conflict), tuple(values))
    return connection.execute(statement, values).first()


def upsert(
    connection: Connection, table: sa.Table, conflict: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Insert rows; one whose `conflict` columns exist takes the new values."""
    if rows:
        names = tuple(rows[0])
        statement = _upsert(connection.dialect.name, table, tuple(conflict), names)
        connection.execute(statement, list(rows))


# Compiled once: SQLAlchemy keeps no compiled form of `ON CONFLICT`, and making one costs ten
# times what running it does.
@functools.cache
def _insert_new(
    dialect: str, table: sa.Table, conflict: tuple[str, ...], names: tuple[str, ...]
) -> Any:
    statement = _insert(dialect, table).on_conflict_do_nothing(index_elements=conflict)
    return _compiled(dialect, statement.returning(table), names)


@functools.cache
def _upsert(
    dialect: str, table: sa.Table, conflict: tuple[str, ...], names: tuple[str, ...]
) -> Any:
    statement = _insert(dialect, table)
    changed = {name: statement.excluded[name] for name in names if name not in conflict}
    statement = statement.on_conflict_do_update(index_elements=conflict, set_=changed)
    return _compiled(dialect, statement, names)


def _insert(dialect: str, table: sa.Table) -> Any:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _compiled(dialect: str, statement: Any, names: tuple[str, ...]) -> Any:
    make = psycopg_dialect if dialect == "postgresql" else sqlite_dialect
    return statement.compile(dialect=make(), column_keys=list(names))


def insert_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert many rows, their values as the driver takes them."""
    if rows:
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        # Names are those of this schema's own tables.
        driver_sql(connection, f"INSERT INTO {table} ({names}) VALUES ({marks})", list(rows))  # noqa: S608


@dataclass(frozen=True, slots=True)
class Sort:
    """One thing to sort by, and the Python type a page token carries it as."""

    value: sa.ColumnElement[Any]
    kind: type
    descending: bool = False
    nullable: bool = True


def by_time(
    column: sa.ColumnElement[Any], *, descending: bool = False, nullable: bool = True
) -> Sort:
    """Sort by a `Timestamp` column."""
    return Sort(sa.type_coerce(column, sa.BigInteger), int, descending, nullable)


def by_number(column: sa.ColumnElement[Any], *, descending: bool = False) -> Sort:
    """Sort by a `Double` column; NaN counts as no value."""
    number = sa.case((column <= INFINITY, column), else_=None)
    return Sort(sa.type_coerce(number, Double()), float, descending)


def fetch_page(
    connection: Connection,
    query: sa.Select[Any],
    sorts: Sequence[Sort],
    *,
    listing: Listing,
    scope: str,
) -> tuple[list[Row[Any]], str]:
    """Return a page of a query's rows and the next page's token.

    Args:
        connection: where to read.
        query: what to list, without order.
        sorts: how; the last one must be unique and never null.
        listing: which page.
        scope: everything else that makes this query what it is, for the token.
    """
    scope = "\n".join((scope, listing.filter, listing.order))
    names = [f"sort_{index}" for index in range(len(sorts))]
    key = pagination.decode_token(listing.token, scope, shape(sorts))
    if key is not None:
        query = query.where(after(sorts, key))
    columns = [sort.value.label(name) for sort, name in zip(sorts, names, strict=True)]
    query = query.add_columns(*columns).order_by(*order_of(sorts)).limit(listing.size + 1)
    rows = list(connection.execute(query))
    if len(rows) <= listing.size:
        return rows, ""
    last = rows[listing.size - 1]._mapping  # noqa: SLF001 - the documented way to read by name
    token = pagination.encode_token(scope, [last[name] for name in names])
    return rows[: listing.size], token


def shape(sorts: Sequence[Sort]) -> Any:
    """Return the type of the key in a page token of a list sorted so."""
    return tuple[tuple(sort.kind | None for sort in sorts)]  # type: ignore[misc]  # made at run time


def order_of(sorts: Sequence[Sort]) -> list[sa.ColumnElement[Any]]:
    """Return what to ORDER BY; what has no value comes last."""
    order: list[sa.ColumnElement[Any]] = []
    for sort in sorts[:-1]:
        if sort.nullable:
            order.append(sort.value.is_(None))
        order.append(_directed(sort))
    return [*order, _directed(sorts[-1])]


def after(sorts: Sequence[Sort], key: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return what is true of the rows after a key, in the order of `order_of`."""
    if _is_one_way(sorts):
        # As one comparison of rows an index can begin there.
        pairs = list(zip(sorts, key, strict=True))
        values = sa.tuple_(*(sa.literal(value, _sql_type(sort.kind)) for sort, value in pairs))
        columns = sa.tuple_(*(sort.value for sort in sorts))
        return columns < values if sorts[0].descending else columns > values
    alternatives: list[sa.ColumnElement[bool]] = []
    equal: list[sa.ColumnElement[bool]] = []
    for sort, value in zip(sorts, key, strict=True):
        if value is None:
            equal.append(sort.value.is_(None))
            continue
        literal = sa.literal(value, _sql_type(sort.kind))
        beyond = sort.value < literal if sort.descending else sort.value > literal
        if sort.nullable:
            beyond = sa.or_(sort.value.is_(None), beyond)
        alternatives.append(sa.and_(*equal, beyond))
        equal.append(sort.value == literal)
    return sa.or_(*alternatives, sa.false())


def in_pks(connection: Connection, column: sa.Column[Any], pks: Sequence[int]) -> Any:
    """Say that a column is one of many row ids, however many, with one parameter."""
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(pks), postgresql.ARRAY(sa.BigInteger)))
    rows = sa.func.json_each(json.dumps(list(pks))).table_valued("value")
    return column.in_(sa.select(rows.c.value))


def _is_one_way(sorts: Sequence[Sort]) -> bool:
    return not any(sort.nullable for sort in sorts[:-1]) and len({s.descending for s in sorts}) == 1


def _directed(sort: Sort) -> sa.ColumnElement[Any]:
    return sort.value.desc() if sort.descending else sort.value.asc()


def _sql_type(kind: type) -> Any:
    return {int: sa.BigInteger(), float: sa.Double(), str: sa.Text()}[kind]
