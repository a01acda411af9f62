"""The writes that every ingest makes, of all its runs together: a statement a kind, not a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection

from services.common.sql.driver_sql import Statement, driver_sql, run_together


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is written, and how PostgreSQL is told the types of its columns."""

    rows: str
    """Of one row."""
    arrays: str
    """For PostgreSQL, with `{}` in the place of all rows."""
    types: tuple[str, ...]

    def as_one(self, rows: list[tuple[Any, ...]]) -> Statement:
        """Return one statement for all rows: an array a column, which the server takes apart."""
        if len(rows) == 1:  # an array costs its driver more than its one value
            return self.rows, rows[0]
        given = ", ".join(f"?::{type_}[]" for type_ in self.types)
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        return self.arrays.format(f"unnest({given})"), columns


_MARKS = _Kind(
    "UPDATE runs SET ingest_mark = ? WHERE pk = ?",
    "UPDATE runs SET ingest_mark = given.mark FROM {} AS given (mark, pk) WHERE runs.pk = given.pk",
    ("bigint", "bigint"),
)
_BEATS = _Kind(
    "UPDATE runs SET heartbeat_time = ?, ingest_mark = ? WHERE pk = ?",
    "UPDATE runs SET heartbeat_time = given.moment, ingest_mark = given.mark"
    " FROM {} AS given (moment, mark, pk) WHERE runs.pk = given.pk",
    ("bigint", "bigint", "bigint"),
)
_MOVED = _Kind(
    'UPDATE metric_series SET last_rank = ?, "count" = ?, "last" = ?, last_step = ? WHERE pk = ?',
    'UPDATE metric_series SET last_rank = given.last_rank, "count" = given.times,'
    ' "last" = given.value, last_step = given.step'
    " FROM {} AS given (last_rank, times, value, step, pk) WHERE metric_series.pk = given.pk",
    ("float8", "bigint", "float8", "bigint", "bigint"),
)
_WIDENED = _Kind(
    'UPDATE metric_series SET last_rank = ?, "count" = ?, "last" = ?, last_step = ?,'
    ' "min" = ?, "max" = ? WHERE pk = ?',
    'UPDATE metric_series SET last_rank = given.last_rank, "count" = given.times,'
    ' "last" = given.value, last_step = given.step, "min" = given.least, "max" = given.most'
    " FROM {} AS given (last_rank, times, value, step, least, most, pk)"
    " WHERE metric_series.pk = given.pk",
    ("float8", "bigint", "float8", "bigint", "float8", "float8", "bigint"),
)
_BLOCKS = _Kind(
    'INSERT INTO metric_blocks (run_pk, number, series, steps, times_us, "values")'
    " VALUES (?, ?, ?, ?, ?, ?)",
    'INSERT INTO metric_blocks (run_pk, number, series, steps, times_us, "values")'
    " SELECT * FROM {}",
    ("bigint", "bigint", "bytea", "bytea", "bytea", "bytea"),
)
_WRITERS = _Kind(
    "INSERT INTO run_writers (run_pk, writer, sequence, dropped) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (run_pk, writer) DO UPDATE"
    " SET sequence = excluded.sequence, dropped = excluded.dropped",
    "INSERT INTO run_writers (run_pk, writer, sequence, dropped) SELECT * FROM {}"
    " ON CONFLICT (run_pk, writer) DO UPDATE"
    " SET sequence = excluded.sequence, dropped = excluded.dropped",
    ("bigint", "text", "bigint", "bigint"),
)


@dataclass(slots=True)
class Writes:
    """Rows to be written, in the order of the columns of their statements."""

    marks: list[tuple[Any, ...]] = field(default_factory=list)
    beats: list[tuple[Any, ...]] = field(default_factory=list)
    moved: list[tuple[Any, ...]] = field(default_factory=list)
    widened: list[tuple[Any, ...]] = field(default_factory=list)
    blocks: list[tuple[Any, ...]] = field(default_factory=list)
    writers: list[tuple[Any, ...]] = field(default_factory=list)

    def flush(self, connection: Connection) -> None:
        """Write all of it; on PostgreSQL in one round trip."""
        if connection.dialect.name == "postgresql":
            run_together(connection, [kind.as_one(rows) for kind, rows in self._given()])
            return
        for kind, rows in self._given():
            driver_sql(connection, kind.rows, rows[0] if len(rows) == 1 else rows)

    def _given(self) -> Iterator[tuple[_Kind, list[tuple[Any, ...]]]]:
        kinds = (
            (_MARKS, self.marks),
            (_BEATS, self.beats),
            (_MOVED, self.moved),
            (_WIDENED, self.widened),
            (_BLOCKS, self.blocks),
            (_WRITERS, self.writers),
        )
        return ((kind, rows) for kind, rows in kinds if rows)
