"""Writing what a run's writers send, and reading metric points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.metadata.limits import LABELS, limit_exceeded
from services.metadata.listing import Listing, Page
from services.metadata.runs.domain import (
    METRICS_PER_RUN,
    PARAMS_PER_RUN,
    CodeSource,
    DatasetUse,
    MetricColumn,
    MetricPoint,
    RuntimeEnvironment,
    param_changed,
)
from services.metadata.runs.store import (
    POINTS,
    RUN_DATASETS,
    RUN_PARAMS,
    RUN_TAGS,
    RUN_WRITERS,
    RUNS,
    SERIES,
    summary,
)
from services.metadata.schema import Sort, fetch_page, insert_new, upsert
from services.metadata.values import ParamValue, pack, param_columns


def position(connection: Connection, run_pk: int, writer: str) -> int:
    """Return up to where a writer's batches are kept; 0: nothing yet."""
    query = sa.select(RUN_WRITERS.c.sequence).where(
        RUN_WRITERS.c.run_pk == run_pk, RUN_WRITERS.c.writer == writer
    )
    return connection.execute(query).scalar() or 0


def advance(connection: Connection, run_pk: int, writer: str, *, end: int, dropped: int) -> None:
    """Note up to where a writer's batches are kept, and how many points it dropped so far."""
    row = {"run_pk": run_pk, "writer": writer, "sequence": end, "dropped": dropped}
    upsert(connection, RUN_WRITERS, ["run_pk", "writer"], [row])


def beat(connection: Connection, run_pk: int, now: datetime) -> None:
    """Note that a run was heard of."""
    connection.execute(RUNS.update().where(RUNS.c.pk == run_pk).values(heartbeat_time=now))


def add_params(connection: Connection, run_pk: int, params: Mapping[str, ParamValue]) -> bool:
    """Insert parameters; say whether any was new.

    Raises:
        ServiceError: PARAM_CHANGED, LIMIT_EXCEEDED.
    """
    query = sa.select(RUN_PARAMS.c.key, RUN_PARAMS.c.value).where(RUN_PARAMS.c.run_pk == run_pk)
    known = {row.key: row.value for row in connection.execute(query)}
    for key, value in params.items():
        if key in known and known[key] != pack(value):
            raise param_changed(key)
    new = {key: value for key, value in params.items() if key not in known}
    if len(known) + len(new) > PARAMS_PER_RUN:
        raise limit_exceeded("params_per_run", PARAMS_PER_RUN)
    rows = [{"run_pk": run_pk, "key": k, **param_columns(v)} for k, v in new.items()]
    if rows:
        connection.execute(RUN_PARAMS.insert(), rows)
    return bool(rows)


def set_tags(connection: Connection, run_pk: int, tags: Mapping[str, str]) -> None:
    """Set tags.

    Raises:
        ServiceError: LIMIT_EXCEEDED.
    """
    rows = [{"run_pk": run_pk, "key": key, "value": value} for key, value in tags.items()]
    upsert(connection, RUN_TAGS, ["run_pk", "key"], rows)
    query = sa.select(sa.func.count()).where(RUN_TAGS.c.run_pk == run_pk)
    if connection.execute(query).scalar_one() > LABELS:
        raise limit_exceeded("tags_per_run", LABELS)


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


def add_points(connection: Connection, run_pk: int, columns: Sequence[MetricColumn]) -> None:
    """Append points to a run's series and keep each series' summary; the run must be locked.

    Raises:
        ServiceError: LIMIT_EXCEEDED.
    """
    keys = {column.key for column in columns}
    series = _series(connection, run_pk, keys)
    has_new = bool(keys - series.keys())
    rows: list[tuple[int, int, int, int, Any]] = []
    for column in columns:
        pk, first = _extend(connection, run_pk, column, series)
        triples = zip(column.steps, column.times_us, column.values, strict=True)
        rows += [
            (pk, step, first + index, time_us, value)
            for index, (step, time_us, value) in enumerate(triples)
        ]
    _insert_points(connection, rows)
    count = sa.select(sa.func.count()).where(SERIES.c.run_pk == run_pk)
    if has_new and connection.execute(count).scalar_one() > METRICS_PER_RUN:
        raise limit_exceeded("metrics_per_run", METRICS_PER_RUN)


def list_points(
    connection: Connection, run_pk: int, key: str, listing: Listing
) -> Page[MetricPoint]:
    """Return a page of one metric's points, by step and then by order of logging."""
    query = (
        sa.select(POINTS)
        .join(SERIES, SERIES.c.pk == POINTS.c.series_pk)
        .where(SERIES.c.run_pk == run_pk, SERIES.c.key == key)
    )
    sorts = [Sort(POINTS.c.step, int), Sort(POINTS.c.ordinal, int)]
    scope = f"points\n{run_pk}\n{key}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(MetricPoint(row.step, row.time_us, row.value) for row in rows), token)


def _series(connection: Connection, run_pk: int, keys: set[str]) -> dict[str, Any]:
    query = sa.select(SERIES).where(SERIES.c.run_pk == run_pk, SERIES.c.key.in_(keys))
    return {row.key: (row.pk, summary(row)) for row in connection.execute(query)}


def _extend(
    connection: Connection, run_pk: int, column: MetricColumn, series: dict[str, Any]
) -> tuple[int, int]:
    """Bring a series' summary up to date; return its row and its next point's place."""
    found = column.summary()
    known = series.get(column.key)
    total = known[1].then(found) if known else found
    values = {
        "count": total.count,
        "last": total.last,
        "last_step": total.last_step,
        "last_rank": None if math.isnan(total.last) else total.last,
        "min": total.min,
        "max": total.max,
    }
    if known:
        pk = known[0]
        connection.execute(SERIES.update().where(SERIES.c.pk == pk).values(**values))
    else:
        model_pk = sa.select(RUNS.c.model_pk).where(RUNS.c.pk == run_pk).scalar_subquery()
        statement = SERIES.insert().values(
            run_pk=run_pk, model_pk=model_pk, key=column.key, **values
        )
        pk = connection.execute(statement.returning(SERIES.c.pk)).scalar_one()
    series[column.key] = (pk, total)
    return pk, total.count - found.count


def _insert_points(connection: Connection, rows: Sequence[tuple[int, int, int, int, Any]]) -> None:
    """Insert points as the driver takes them: this is the hot path, values are not processed."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        marks = "?, ?, ?, ?, ?"
        rows = [(*row[:4], "nan" if math.isnan(row[4]) else row[4]) for row in rows]
    else:
        marks = "%s, %s, %s, %s, %s"
    statement = (
        "INSERT INTO metric_points (series_pk, step, ordinal, time_us, value)"  # noqa: S608 - marks
        f" VALUES ({marks})"
    )
    connection.exec_driver_sql(statement, list(rows))
