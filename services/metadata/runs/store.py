"""Tables and queries of runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import WILDCARD, ModelName, RunName
from services.common.sql.database import Double, Timestamp
from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import microseconds
from services.metadata.models.domain import MetricGoal
from services.metadata.models.store import (
    MODEL_GOALS,
    MODELS,
    VERSION_METRICS,
    VERSION_PARAMS,
    VERSIONS,
    maps_of,
)
from services.metadata.runs.domain import (
    CodeSource,
    DatasetUse,
    MetricSummary,
    Run,
    RunState,
    RuntimeEnvironment,
)
from services.metadata.schema import (
    METADATA,
    BinaryText,
    index_params,
    insert_rows,
    param_values,
    reference,
    row_id,
)
from services.metadata.values import Failure, unpack_param

RUNS = sa.Table(
    "runs",
    METADATA,
    row_id(),
    reference("model_pk", "models.pk"),
    sa.Column("run", BinaryText, nullable=False),
    sa.Column("display_name", BinaryText, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failure_reason", sa.Text),
    sa.Column("failure_message", sa.Text),
    sa.Column("notes", sa.Text, nullable=False),
    # The group it belongs to; `group` itself is a word of SQL.
    sa.Column("run_group", BinaryText, nullable=False),
    sa.Column("build", BinaryText, nullable=False, index=True),
    sa.Column("image", BinaryText, nullable=False),
    # Of the code, for filters.
    sa.Column("git_commit", BinaryText, nullable=False),
    sa.Column("git_branch", BinaryText, nullable=False),
    # The code's diff and the packages lie apart: lists leave them out.
    sa.Column("code", sa.LargeBinary),
    sa.Column("diff", sa.Text, nullable=False),
    sa.Column("environment", sa.LargeBinary),
    sa.Column("packages", sa.LargeBinary),
    sa.Column("creator", BinaryText, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("end_time", Timestamp),
    sa.Column("heartbeat_time", Timestamp, nullable=False),
    sa.Column("delete_time", Timestamp),
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Anew at random with every ingest: whoever knows it knows the run's series.
    sa.Column("ingest_mark", sa.BigInteger, nullable=False, default=0),
    sa.UniqueConstraint("model_pk", "run"),
)
sa.Index("runs_heartbeat", RUNS.c.state, RUNS.c.heartbeat_time)
sa.Index("runs_model", RUNS.c.model_pk, RUNS.c.pk)
sa.Index("runs_created", RUNS.c.model_pk, RUNS.c.create_time, RUNS.c.pk)
RUN_TAGS = sa.Table(
    "run_tags",
    METADATA,
    reference("run_pk", "runs.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    # The run's model, for indexes that serve searches; the same below.
    sa.Column("model_pk", sa.BigInteger, nullable=False),
    sa.Column("value", BinaryText, nullable=False),
)
RUN_PARAMS = sa.Table(
    "run_params",
    METADATA,
    reference("run_pk", "runs.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model_pk", sa.BigInteger, nullable=False),
    *param_values(),
)
RUN_DATASETS = sa.Table(
    "run_datasets",
    METADATA,
    reference("run_pk", "runs.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("dataset_version", BinaryText, primary_key=True, index=True),
)
RUN_WRITERS = sa.Table(
    "run_writers",
    METADATA,
    reference("run_pk", "runs.pk", primary_key=True),
    sa.Column("writer", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
)
SERIES = sa.Table(
    "metric_series",
    METADATA,
    row_id(),
    reference("run_pk", "runs.pk"),
    sa.Column("model_pk", sa.BigInteger, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last", Double, nullable=False),
    sa.Column("last_step", sa.BigInteger, nullable=False),
    # The last value to sort by: NaN is no value.
    sa.Column("last_rank", sa.Double),
    sa.Column("min", Double),
    sa.Column("max", Double),
    sa.UniqueConstraint("run_pk", "key"),
)
for _name, _column in (("group", RUNS.c.run_group), ("commit", RUNS.c.git_commit)):
    _some = _column != sa.literal_column("''")
    sa.Index(f"runs_{_name}", RUNS.c.model_pk, _column, postgresql_where=_some, sqlite_where=_some)
for _figure in ("last_rank", "min", "max"):
    # The run comes last, so that one index serves an order, a page of it and a condition.
    sa.Index(f"series_{_figure}", *(SERIES.c[n] for n in ("model_pk", "key", _figure, "run_pk")))
sa.Index("run_tags_value", *(RUN_TAGS.c[n] for n in ("model_pk", "key", "value", "run_pk")))
index_params("run_params", RUN_PARAMS, owner="run_pk")


# A run of a model that there is, locked until the transaction's end; one of that name stays.
_INSERT_RUN = (
    "INSERT INTO runs (model_pk, run, display_name, notes, run_group, build, creator, state,"
    " create_time, heartbeat_time, git_commit, git_branch, image, diff, revision, ingest_mark)"
    " SELECT pk, ?, ?, ?, ?, ?, ?, 'RUNNING', ?, ?, '', '', '', '', 1, 0 FROM models"
    " WHERE project = ? AND model = ? AND delete_time IS NULL{lock}"
    " ON CONFLICT (model_pk, run) DO NOTHING"
    " RETURNING pk, model_pk"
)


def insert_run(connection: Connection, run: Run) -> int | None:
    """Insert a run that has just been started, and return its row.

    None when a run of this name exists, or its model does not or is deleted.
    """
    name, start = run.name, microseconds(run.create_time)
    texts = (name.run, run.display_name, run.notes, run.group, run.build, run.creator)
    values = (*texts, start, start, name.project, name.model)
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    row = driver_sql(connection, _INSERT_RUN.format(lock=lock), values).fetchone()
    if row is None:
        return None
    tags = [(*row, key, value) for key, value in run.tags.items()]
    insert_rows(connection, RUN_TAGS.name, ("run_pk", "model_pk", "key", "value"), tags)
    return int(row[0])


def find_run_pk(connection: Connection, name: RunName, *, deleted: bool = True) -> int | None:
    """Return a run's row, or None; also when it is deleted and that does not do."""
    query = _pk(name)
    if not deleted:
        query = query.where(RUNS.c.delete_time.is_(None))
    return connection.execute(query).scalar()


def model_of(connection: Connection, run_pk: int) -> int:
    """Return the row of a run's model."""
    query = sa.select(RUNS.c.model_pk).where(RUNS.c.pk == run_pk)
    return int(connection.execute(query).scalar_one())


def series_of(
    connection: Connection, run_pk: int, keys: Sequence[str] = ()
) -> list[tuple[str, int]]:
    """Return key and row of a run's series, of some keys or of all."""
    query = sa.select(SERIES.c.key, SERIES.c.pk).where(SERIES.c.run_pk == run_pk)
    if keys:
        query = query.where(SERIES.c.key.in_(keys))
    return [(row.key, row.pk) for row in connection.execute(query)]


def lock_run(connection: Connection, name: RunName) -> Row[Any] | None:
    """Return a run's pk, state, failure reason and deletion, locked until the transaction's end."""
    columns = (RUNS.c.state, RUNS.c.failure_reason, RUNS.c.delete_time)
    query = _pk(name).add_columns(*columns).with_for_update(of=RUNS)
    return connection.execute(query).first()


def find_run(connection: Connection, name: RunName) -> Run | None:
    """Return a run with everything that is known of it, or None."""
    query = _select(list(RUNS.c)).where(_of_model(name.parent), RUNS.c.run == name.run)
    rows = list(connection.execute(query))
    return _runs(connection, rows)[0] if rows else None


def find_runs(connection: Connection, names: Collection[RunName]) -> list[Run]:
    """Return those of some runs that there are, with everything that is known of them."""
    ids: dict[ModelName, set[str]] = {}
    for name in names:
        ids.setdefault(name.parent, set()).add(name.run)
    if not ids:
        return []
    wanted = [sa.and_(_of_model(model), RUNS.c.run.in_(found)) for model, found in ids.items()]
    rows = list(connection.execute(_select(list(RUNS.c)).where(sa.or_(*wanted))))
    return _runs(connection, rows)


def set_ended(
    connection: Connection, run_pk: int, state: RunState, failure: Failure | None, now: datetime
) -> None:
    """End a run."""
    connection.execute(
        RUNS.update()
        .where(RUNS.c.pk == run_pk)
        .values(
            state=state.value,
            failure_reason=failure.reason if failure else None,
            failure_message=failure.message if failure else None,
            end_time=now,
            revision=RUNS.c.revision + 1,
        )
    )


def set_running(connection: Connection, run_pk: int) -> None:
    """Take back that a run ended."""
    connection.execute(
        RUNS.update()
        .where(RUNS.c.pk == run_pk)
        .values(
            state=RunState.RUNNING.value,
            failure_reason=None,
            failure_message=None,
            end_time=None,
            revision=RUNS.c.revision + 1,
        )
    )


def fail_silent(
    connection: Connection, *, before: datetime, failure: Failure, now: datetime, limit: int
) -> list[RunName]:
    """Fail runs that were last heard of before a moment; return which."""
    silent = sa.and_(RUNS.c.state == RunState.RUNNING.value, RUNS.c.heartbeat_time < before)
    some = sa.select(RUNS.c.pk).where(silent).order_by(RUNS.c.pk).limit(limit)
    names = (
        sa.select(RUNS.c.pk, RUNS.c.run, MODELS.c.project, MODELS.c.model)
        .join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
        .where(RUNS.c.pk.in_(some))
        .with_for_update(of=RUNS)
    )
    # Locked first and looked at again: a heartbeat may have come in between.
    rows = {row.pk: row for row in connection.execute(names)}
    statement = RUNS.update().where(RUNS.c.pk.in_(list(rows)), silent)
    ended = connection.execute(
        statement.values(
            state=RunState.FAILED.value,
            failure_reason=failure.reason,
            failure_message=failure.message,
            end_time=now,
            revision=RUNS.c.revision + 1,
        ).returning(RUNS.c.pk)
    )
    found = [rows[pk] for pk in ended.scalars()]
    return [RunName(row.project, row.model, row.run) for row in found]


def copy_results(connection: Connection, run_pk: int, *, version_pk: int) -> None:
    """Copy a run's parameters and last metric values to a version, and note whose they are."""
    connection.execute(VERSIONS.update().where(VERSIONS.c.pk == version_pk).values(run_pk=run_pk))
    columns = ["model_pk", "key", "value", "text_value", "number_value", "flag_value"]
    params = sa.select(
        sa.literal(version_pk, sa.BigInteger), *(RUN_PARAMS.c[name] for name in columns)
    ).where(RUN_PARAMS.c.run_pk == run_pk)
    connection.execute(VERSION_PARAMS.insert().from_select(["version_pk", *columns], params))
    figures = ["model_pk", "key", "last", "last_rank", "min", "max"]
    metrics = sa.select(
        sa.literal(version_pk, sa.BigInteger), *(SERIES.c[name] for name in figures)
    ).where(SERIES.c.run_pk == run_pk)
    connection.execute(VERSION_METRICS.insert().from_select(["version_pk", *figures], metrics))


def _pk(name: RunName) -> sa.Select[Any]:
    return (
        sa.select(RUNS.c.pk)
        .join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
        .where(_of_model(name.parent), RUNS.c.run == name.run)
    )


def _select(columns: Sequence[sa.Column[Any]]) -> sa.Select[Any]:
    return sa.select(*columns, MODELS.c.project, MODELS.c.model).join(
        MODELS, MODELS.c.pk == RUNS.c.model_pk
    )


def _of_model(name: ModelName) -> sa.ColumnElement[bool]:
    in_project = MODELS.c.project == name.project
    if name.model == WILDCARD:
        return in_project
    return sa.and_(in_project, MODELS.c.model == name.model)


def _runs(connection: Connection, rows: Sequence[Row[Any]]) -> list[Run]:
    pks = [row.pk for row in rows]
    tags = maps_of(connection, RUN_TAGS, "run_pk", pks)
    params = maps_of(connection, RUN_PARAMS, "run_pk", pks)
    metrics = maps_of(connection, SERIES, "run_pk", pks)
    goals = _goals(connection, {row.model_pk for row in rows})
    datasets = maps_of(connection, RUN_DATASETS, "run_pk", pks)
    dropped = _dropped(connection, pks)
    return [
        Run(
            name=RunName(row.project, row.model, row.run),
            display_name=row.display_name,
            state=RunState(row.state),
            failure=(
                Failure(row.failure_reason, row.failure_message)
                if row.failure_reason is not None
                else None
            ),
            tags={entry.key: entry.value for entry in tags[row.pk]},
            params={entry.key: unpack_param(entry.value) for entry in params[row.pk]},
            metrics=tuple(summary(e, goals.get((row.model_pk, e.key))) for e in metrics[row.pk]),
            code=_code(row),
            environment=_environment(row),
            datasets=tuple(DatasetUse(e.key, e.dataset_version) for e in datasets[row.pk]),
            image=row.image,
            build=row.build,
            notes=getattr(row, "notes", ""),
            group=row.run_group,
            delete_time=row.delete_time,
            dropped=dropped.get(row.pk, 0),
            creator=row.creator,
            create_time=row.create_time,
            end_time=row.end_time,
            heartbeat_time=row.heartbeat_time,
            revision=row.revision,
        )
        for row in rows
    ]


def summary(row: Row[Any], goal: MetricGoal | None = None) -> MetricSummary:
    """Return what a series comes to."""
    columns = row._mapping  # noqa: SLF001 - documented; `count` is a method of a row
    return MetricSummary(row.key, columns["count"], row.last, row.last_step, row.min, row.max, goal)


def _goals(connection: Connection, model_pks: Collection[int]) -> dict[tuple[int, str], MetricGoal]:
    query = sa.select(MODEL_GOALS).where(MODEL_GOALS.c.model_pk.in_(model_pks))
    rows = connection.execute(query)
    return {(row.model_pk, row.key): MetricGoal(row.goal) for row in rows}


def _dropped(connection: Connection, pks: Sequence[int]) -> dict[int, int]:
    total = sa.func.sum(RUN_WRITERS.c.dropped).label("total")
    query = sa.select(RUN_WRITERS.c.run_pk, total).where(RUN_WRITERS.c.run_pk.in_(pks))
    rows = connection.execute(query.group_by(RUN_WRITERS.c.run_pk))
    return {row.run_pk: int(row.total) for row in rows}


def _code(row: Row[Any]) -> CodeSource | None:
    if row.code is None:
        return None
    code = msgspec.msgpack.decode(row.code, type=CodeSource)
    return replace(code, diff=getattr(row, "diff", ""))


def _environment(row: Row[Any]) -> RuntimeEnvironment | None:
    if row.environment is None:
        return None
    environment = msgspec.msgpack.decode(row.environment, type=RuntimeEnvironment)
    packages = getattr(row, "packages", None)
    if packages is None:
        return environment
    return replace(
        environment, packages=msgspec.msgpack.decode(packages, type=tuple[tuple[str, str], ...])
    )
