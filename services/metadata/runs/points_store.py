"""How metric points lie in the database: packed columns in chunks, fresh ones in blocks.

A chunk is a row with some points of one series, in order of logging. What comes in
few points at a time goes to a block first: a row with the new points of all of a
run's series. Once a run has many blocks they become chunks, and once a series has
many small chunks those become one. So a point is written a few times at most, and a
batch of a thousand metrics is one row and not a thousand.

Numbers are packed little-endian, eight bytes each, so that NaN, infinities and -0.0
come back bit by bit.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.driver_sql import driver_sql
from services.metadata.runs import columns
from services.metadata.runs.domain import MetricColumn
from services.metadata.schema import METADATA, insert_rows

DIRECT = 1_024
"""So many points of one series at once need no block; a chunk of so many is not merged."""
CHUNK = 32_768
BLOCKS = 64
BLOCK_POINTS = 65_536
SMALL_CHUNKS = 32

POINT_CHUNKS = sa.Table(
    "metric_chunks",
    METADATA,
    sa.Column("series_pk", sa.BigInteger, primary_key=True, autoincrement=False),
    # The first point's place in its series, in order of logging.
    sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("min_step", sa.BigInteger, nullable=False),
    sa.Column("max_step", sa.BigInteger, nullable=False),
    sa.Column("steps", sa.LargeBinary, nullable=False),
    sa.Column("times_us", sa.LargeBinary, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
)
POINT_BLOCKS = sa.Table(
    "metric_blocks",
    METADATA,
    sa.Column("run_pk", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    # Of each series with points here: its row, its first point's place, how many.
    sa.Column("series", sa.LargeBinary, nullable=False),
    sa.Column("steps", sa.LargeBinary, nullable=False),
    sa.Column("times_us", sa.LargeBinary, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
)
_CHUNK_COLUMNS = [column.name for column in POINT_CHUNKS.c]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Some points of a series, the first of them at place `ordinal` of it."""

    series_pk: int
    ordinal: int
    points: MetricColumn


@dataclass(frozen=True, slots=True)
class Extent:
    """What is known of a piece without reading it."""

    ordinal: int
    count: int
    min_step: int
    max_step: int
    # As read already, when it was in a block.
    points: MetricColumn | None = None


def add_chunks(connection: Connection, pieces: Iterable[Piece]) -> None:
    """Insert points as chunks."""
    rows = []
    for piece in pieces:
        for start in range(0, len(piece.points.steps), CHUNK):
            points = columns.part(piece.points, start, start + CHUNK)
            rows.append(
                (
                    piece.series_pk,
                    piece.ordinal + start,
                    len(points.steps),
                    min(points.steps),
                    max(points.steps),
                    *_packed(points),
                )
            )
    insert_rows(connection, POINT_CHUNKS.name, _CHUNK_COLUMNS, rows)


def block(run_pk: int, number: int, pieces: Sequence[Piece]) -> tuple[Any, ...]:
    """Return points of a run's series as the row of one block."""
    series = array("q")
    for piece in pieces:
        series.extend((piece.series_pk, piece.ordinal, len(piece.points.steps)))
    whole = columns.join("", (piece.points for piece in pieces))
    return (run_pk, number, columns.pack(series), *_packed(whole))


def block_numbers(connection: Connection, run_pk: int) -> tuple[int, int, int]:
    """Return how many blocks a run has, how many points are in them, and the next one's number."""
    sql = (
        "SELECT count(*), coalesce(sum(length(steps)), 0), coalesce(max(number), 0)"
        " FROM metric_blocks WHERE run_pk = ?"
    )
    count, size, last = driver_sql(connection, sql, (run_pk,)).fetchone()
    return int(count), int(size) // 8, int(last) + 1


def compact(connection: Connection, run_pk: int) -> None:
    """Turn a run's blocks into chunks, and many small chunks of a series into one."""
    found: dict[int, list[Piece]] = defaultdict(list)
    for piece in _blocks(connection, run_pk):
        found[piece.series_pk].append(piece)
    driver_sql(connection, "DELETE FROM metric_blocks WHERE run_pk = ?", (run_pk,))
    # A chunk that came in between keeps its place between two of them.
    add_chunks(connection, (joined for pieces in found.values() for joined in _joined(pieces)))
    _merge(connection, list(found))


def extents(connection: Connection, run_pk: int, series_pks: Sequence[int]) -> Extents:
    """Return the pieces of some of a run's series, by series and in order of logging."""
    found: Extents = {pk: [] for pk in series_pks}
    query = sa.select(
        POINT_CHUNKS.c.series_pk,
        POINT_CHUNKS.c.ordinal,
        POINT_CHUNKS.c["count"],
        POINT_CHUNKS.c.min_step,
        POINT_CHUNKS.c.max_step,
    ).where(POINT_CHUNKS.c.series_pk.in_(series_pks))
    for pk, *figures in connection.execute(query):
        found[pk].append(Extent(*figures))
    for piece in _blocks(connection, run_pk, set(series_pks)):
        steps = piece.points.steps
        extent = Extent(piece.ordinal, len(steps), min(steps), max(steps), piece.points)
        found[piece.series_pk].append(extent)
    for pieces in found.values():
        pieces.sort(key=lambda extent: extent.ordinal)
    return found


Extents = dict[int, list[Extent]]


def read(connection: Connection, series_pk: int, extent: Extent) -> MetricColumn:
    """Return the points of a piece."""
    if extent.points is not None:
        return extent.points
    query = sa.select(POINT_CHUNKS.c.steps, POINT_CHUNKS.c.times_us, POINT_CHUNKS.c["values"])
    query = query.where(
        POINT_CHUNKS.c.series_pk == series_pk, POINT_CHUNKS.c.ordinal == extent.ordinal
    )
    return _unpacked(*connection.execute(query).one())


def delete_points(connection: Connection, run_pk: int, series_pks: Sequence[int]) -> None:
    """Remove all points of a run."""
    connection.execute(POINT_BLOCKS.delete().where(POINT_BLOCKS.c.run_pk == run_pk))
    connection.execute(POINT_CHUNKS.delete().where(POINT_CHUNKS.c.series_pk.in_(series_pks)))


def _packed(points: MetricColumn) -> tuple[bytes, bytes, bytes]:
    return columns.pack(points.steps), columns.pack(points.times_us), columns.pack(points.values)


def _unpacked(steps: bytes, times_us: bytes, values: bytes) -> MetricColumn:
    return MetricColumn(
        "",
        columns.unpack("q", steps),
        columns.unpack("Q", times_us),
        columns.unpack("d", values),
    )


def _blocks(connection: Connection, run_pk: int, wanted: set[int] | None = None) -> Iterator[Piece]:
    """Yield what a run's blocks hold, of each series in order of logging."""
    sql = (
        'SELECT series, steps, times_us, "values" FROM metric_blocks'
        " WHERE run_pk = ? ORDER BY number"
    )
    for series, *packed in driver_sql(connection, sql, (run_pk,)):
        index: array[int] = columns.unpack("q", series)
        if wanted is not None and wanted.isdisjoint(index[::3]):
            continue
        whole, at = _unpacked(*packed), 0
        for place in range(0, len(index), 3):
            pk, ordinal, count = index[place : place + 3]
            if wanted is None or pk in wanted:
                yield Piece(pk, ordinal, columns.part(whole, at, at + count))
            at += count


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Put pieces that follow one another directly together."""
    start = 0
    for place, piece in enumerate(pieces):
        following = pieces[place + 1].ordinal if place + 1 < len(pieces) else -1
        if following != piece.ordinal + len(piece.points.steps):
            points = columns.join("", (one.points for one in pieces[start : place + 1]))
            yield Piece(piece.series_pk, pieces[start].ordinal, points)
            start = place + 1


def _merge(connection: Connection, series_pks: Sequence[int]) -> None:
    found = _small_chunks(connection, series_pks)
    for pk, ordinals in found.items():
        if len(ordinals) < SMALL_CHUNKS:
            continue
        span = (pk, ordinals[0], ordinals[-1])
        where = " FROM metric_chunks WHERE series_pk = ? AND ordinal BETWEEN ? AND ?"
        order = " ORDER BY ordinal"
        rows = driver_sql(
            connection, 'SELECT ordinal, steps, times_us, "values"' + where + order, span
        )
        pieces = [Piece(pk, ordinal, _unpacked(*packed)) for ordinal, *packed in rows]
        driver_sql(connection, "DELETE" + where, span)
        add_chunks(connection, _joined(pieces))


def _small_chunks(connection: Connection, series_pks: Sequence[int]) -> Mapping[int, Sequence[int]]:
    """Return the first places of each series' small chunks, up to the last one that is not."""
    query = (
        sa.select(POINT_CHUNKS.c.series_pk, POINT_CHUNKS.c.ordinal, POINT_CHUNKS.c["count"])
        .where(POINT_CHUNKS.c.series_pk.in_(series_pks))
        .order_by(POINT_CHUNKS.c.series_pk, POINT_CHUNKS.c.ordinal)
    )
    found: dict[int, list[int]] = defaultdict(list)
    for pk, ordinal, count in connection.execute(query):
        if count >= DIRECT:
            found[pk].clear()
        else:
            found[pk].append(ordinal)
    return found
