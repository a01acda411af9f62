"""Writing what runs' writers send: many batches of many runs at once, a few statements a run.

What the database holds of a run is kept as a `Ledger` from one transaction to the
next, so that nothing is read again that is known. A random mark in the run's row,
set anew by every ingest, says whether the ledger still holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import EPOCH, microseconds
from services.metadata.models.domain import MetricGoal
from services.metadata.models.store import MODEL_GOALS
from services.metadata.runs import columns as arithmetic
from services.metadata.runs import points_store
from services.metadata.runs.domain import (
    CodeSource,
    DatasetUse,
    MetricColumn,
    MetricSummary,
    RuntimeEnvironment,
)
from services.metadata.runs.store import (
    RUN_DATASETS,
    RUN_PARAMS,
    RUN_TAGS,
    RUN_WRITERS,
    RUNS,
    SERIES,
    summary,
)
from services.metadata.runs.writes_store import Writes
from services.metadata.schema import insert_new, insert_rows, upsert
from services.metadata.values import ParamValue, pack, param_columns

_MARK_BITS = (48, 62)
_HEARTBEAT = timedelta(seconds=0.1)
_SERIES_COLUMNS = (
    "run_pk",
    "model_pk",
    "key",
    "last_rank",
    "count",
    "last",
    "last_step",
    "min",
    "max",
)


class Series(msgspec.Struct, frozen=True, gc=False):
    """A series' row and what it comes to."""

    pk: int
    summary: MetricSummary


@dataclass(slots=True)
class Ledger:
    """What the database held of a run after the ingest with this mark."""

    run_pk: int
    model_pk: int
    mark: int
    writers: dict[str, int]
    series: dict[str, Series]
    blocks: int = 0
    block_points: int = 0
    next_block: int = 1
    # The heartbeat that is in the database.
    heard: datetime = EPOCH
    # Packed; None: not looked up yet.
    params: dict[str, bytes] | None = None


@dataclass(slots=True)
class Written:
    """What an ingest adds to a run; it joins the ledger once it is committed."""

    mark: int
    heard: datetime
    writers: dict[str, int]
    series: dict[str, Series] = field(default_factory=dict)
    blocks: int = 0
    block_points: int = 0
    next_block: int = 1


class LockedRun(NamedTuple):
    """What of a run decides whether and how it takes a batch."""

    pk: int
    state: str
    failure_reason: str | None
    ingest_mark: int
    delete_time: int | None


def lock_runs(connection: Connection, pks: Iterable[int]) -> dict[int, LockedRun]:
    """Return runs, locked until the transaction's end."""
    wanted = tuple(sorted(pks))
    suffix = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    marks = ", ".join("?" * len(wanted))
    sql = (
        "SELECT pk, state, failure_reason, ingest_mark, delete_time FROM runs"  # noqa: S608 - marks
        f" WHERE pk IN ({marks}) ORDER BY pk{suffix}"
    )
    rows = driver_sql(connection, sql, wanted) if wanted else ()
    return {row[0]: LockedRun(*row) for row in rows}


def load(connection: Connection, run_pk: int, mark: int) -> Ledger:
    """Read a locked run's ledger."""
    model_pk = connection.execute(
        sa.select(RUNS.c.model_pk).where(RUNS.c.pk == run_pk)
    ).scalar_one()
    query = sa.select(RUN_WRITERS.c.writer, RUN_WRITERS.c.sequence)
    writers = connection.execute(query.where(RUN_WRITERS.c.run_pk == run_pk))
    rows = connection.execute(sa.select(SERIES).where(SERIES.c.run_pk == run_pk))
    series = {row.key: Series(row.pk, summary(row)) for row in rows}
    numbers = points_store.block_numbers(connection, run_pk)
    known = {row.writer: row.sequence for row in writers}
    return Ledger(run_pk, model_pk, mark, known, series, *numbers)


def position(connection: Connection, run_pk: int, writer: str) -> int:
    """Return up to where a writer's batches are kept; 0: nothing yet."""
    query = sa.select(RUN_WRITERS.c.sequence).where(
        RUN_WRITERS.c.run_pk == run_pk, RUN_WRITERS.c.writer == writer
    )
    return connection.execute(query).scalar() or 0


def params_of(connection: Connection, run_pk: int) -> dict[str, bytes]:
    """Return a run's parameters, packed."""
    query = sa.select(RUN_PARAMS.c.key, RUN_PARAMS.c.value).where(RUN_PARAMS.c.run_pk == run_pk)
    return {row.key: row.value for row in connection.execute(query)}


def tag_keys(connection: Connection, run_pk: int) -> set[str]:
    """Return the keys of a run's tags."""
    query = sa.select(RUN_TAGS.c.key).where(RUN_TAGS.c.run_pk == run_pk)
    return set(connection.execute(query).scalars())


def beat(ledger: Ledger, now: datetime, writes: Writes) -> tuple[int, datetime]:
    """Note that a run was heard of and mark it anew; return the mark and the heartbeat kept.

    A heartbeat that is hardly newer is left: it has an index of its own to be moved in.
    """
    low, high = _MARK_BITS
    mark = random.randrange(1 << low, 1 << high)  # noqa: S311 - only told from the others
    if now - ledger.heard < _HEARTBEAT:
        writes.marks.append((mark, ledger.run_pk))
        return mark, ledger.heard
    moment = microseconds(now)
    writes.beats.append((moment, mark, ledger.run_pk))
    return mark, now


def advance(run_pk: int, writers: Mapping[str, tuple[int, int]], writes: Writes) -> None:
    """Note up to where writers' batches are kept, and how many points each dropped so far."""
    writes.writers += ((run_pk, writer, end, dropped) for writer, (end, dropped) in writers.items())


def add_params(connection: Connection, ledger: Ledger, params: Mapping[str, ParamValue]) -> None:
    """Insert parameters that are new."""
    owner = {"run_pk": ledger.run_pk, "model_pk": ledger.model_pk}
    rows = [{**owner, "key": key, **param_columns(value)} for key, value in params.items()]
    if rows:
        connection.execute(RUN_PARAMS.insert(), rows)


def set_tags(connection: Connection, ledger: Ledger, tags: Mapping[str, str]) -> None:
    """Set tags."""
    owner = {"run_pk": ledger.run_pk, "model_pk": ledger.model_pk}
    rows = [{**owner, "key": key, "value": value} for key, value in tags.items()]
    upsert(connection, RUN_TAGS, ["run_pk", "key"], rows)


def add_datasets(connection: Connection, run_pk: int, uses: Sequence[DatasetUse]) -> None:
    """Note dataset versions that a run used; a repeat changes nothing."""
    for use in uses:
        insert_new(
            connection,
            RUN_DATASETS,
            ["run_pk", "key", "dataset_version"],
            run_pk=run_pk,
            key=use.role,
            dataset_version=use.dataset_version,
        )


def add_goals(connection: Connection, model_pk: int, goals: Mapping[str, MetricGoal]) -> None:
    """Set a model's goals for metrics; one that it has stays."""
    for key, goal in sorted(goals.items()):
        insert_new(
            connection,
            MODEL_GOALS,
            ["model_pk", "key"],
            model_pk=model_pk,
            key=key,
            goal=goal.value,
        )


def set_ingredients(
    connection: Connection,
    run_pk: int,
    *,
    code: CodeSource | None,
    environment: RuntimeEnvironment | None,
    image: str,
) -> None:
    """Set what a run ran with, as far as it is given, and count the write."""
    values: dict[str, Any] = {"revision": RUNS.c.revision + 1}
    if code is not None:
        values |= {"code": pack(replace(code, diff="")), "diff": code.diff}
        values |= {"git_commit": code.commit, "git_branch": code.branch}
    if environment is not None:
        values["environment"] = pack(replace(environment, packages=()))
        values["packages"] = pack(environment.packages)
    if image:
        values["image"] = image
    connection.execute(RUNS.update().where(RUNS.c.pk == run_pk).values(**values))


def add_points(
    connection: Connection,
    ledger: Ledger,
    written: Written,
    found: Mapping[str, Sequence[MetricColumn]],
    writes: Writes,
) -> None:
    """Append points to a locked run's series and bring what those come to up to date.

    What can wait is added to `writes`; afterwards the run may be crowded.
    """
    joined = {
        key: parts[0] if len(parts) == 1 else arithmetic.join(key, parts)
        for key, parts in found.items()
    }
    sums = [column.summary() for column in joined.values()]
    _write_series(connection, ledger, written, sums, writes)
    direct, fresh, points = [], [], 0
    for key, column in joined.items():
        series, count = written.series[key], len(column.steps)
        piece = points_store.Piece(series.pk, series.summary.count - count, column)
        if count >= points_store.DIRECT:
            direct.append(piece)
        else:
            fresh.append(piece)
            points += count
    points_store.add_chunks(connection, direct)
    if fresh:
        writes.blocks.append(points_store.block(ledger.run_pk, written.next_block, fresh))
        written.blocks += 1
        written.block_points += points
        written.next_block += 1


def compact_crowded(connection: Connection, ledger: Ledger, written: Written) -> None:
    """Turn a run's blocks into chunks once they are many."""
    if written.blocks >= points_store.BLOCKS or written.block_points >= points_store.BLOCK_POINTS:
        points_store.compact(connection, ledger.run_pk)
        written.blocks = written.block_points = 0


def _write_series(
    connection: Connection,
    ledger: Ledger,
    written: Written,
    found: Sequence[MetricSummary],
    writes: Writes,
) -> None:
    """Insert and update series; afterwards `written` knows the row and the sum of each."""
    new = []
    for later in found:
        known = ledger.series.get(later.key)
        if known is None:
            new.append(later)
            continue
        total = known.summary.then(later)
        written.series[later.key] = Series(known.pk, total)
        figures = _figures(connection, total)
        # The extremes have indexes of their own; they seldom change.
        if (total.min, total.max) == (known.summary.min, known.summary.max):
            writes.moved.append((*figures[:4], known.pk))
        else:
            writes.widened.append((*figures, known.pk))
    if new:
        _insert_series(connection, ledger, written, new)


def _insert_series(
    connection: Connection, ledger: Ledger, written: Written, new: Sequence[MetricSummary]
) -> None:
    rows = [(ledger.run_pk, ledger.model_pk, one.key, *_figures(connection, one)) for one in new]
    insert_rows(connection, SERIES.name, _SERIES_COLUMNS, rows)
    sql = "SELECT key, pk FROM metric_series WHERE run_pk = ?"
    parameters: tuple[Any, ...] = (ledger.run_pk,)
    if len(new) == 1:
        sql, parameters = f"{sql} AND key = ?", (ledger.run_pk, new[0].key)
    pks = dict(driver_sql(connection, sql, parameters))
    for one in new:
        written.series[one.key] = Series(pks[one.key], one)


def _figures(connection: Connection, one: MetricSummary) -> tuple[Any, ...]:
    """Return a summary as its columns hold it; SQLite would take NaN for NULL."""
    last: float | str = one.last
    rank: float | None = one.last
    if math.isnan(one.last):
        rank = None
        if connection.dialect.name == "sqlite":
            last = "nan"
    return rank, one.count, last, one.last_step, one.min, one.max
