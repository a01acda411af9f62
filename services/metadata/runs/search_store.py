"""Searching runs: which fields they have, and reading many of them at once.

A page of runs is thousands of small rows. They are read as the driver gives them, on
PostgreSQL in one round trip.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.listing.filter_syntax import Presence
from services.common.listing.filtering import (
    FieldCompiler,
    FilterProblemError,
    Literal,
    Operator,
    enum_field,
)
from services.common.names import DatasetName, DatasetVersionName, ModelName, RunName
from services.common.sql.outbox import EPOCH
from services.metadata import search_schema as fields
from services.metadata.listing import Listing
from services.metadata.models.domain import MetricGoal
from services.metadata.models.store import MODELS
from services.metadata.runs.domain import (
    CodeSource,
    DatasetUse,
    MetricSummary,
    Run,
    RunState,
    RuntimeEnvironment,
)
from services.metadata.runs.store import RUN_DATASETS, RUN_PARAMS, RUN_TAGS, RUNS, SERIES
from services.metadata.search_store import search
from services.metadata.values import Failure, unpack_param

_RUNS = """
SELECT r.pk, m.project, m.model, r.run, r.display_name, r.state, r.failure_reason,
    r.failure_message, r.run_group, r.build, r.image, r.code, r.environment, r.creator,
    r.create_time, r.end_time, r.heartbeat_time, r.delete_time, r.revision, r.model_pk
FROM runs r JOIN models m ON m.pk = r.model_pk WHERE r.pk {pks}"""
_PARAMS = "SELECT run_pk, key, value FROM run_params WHERE run_pk {pks}"
_TAGS = "SELECT run_pk, key, value FROM run_tags WHERE run_pk {pks}"
_SERIES = """
SELECT run_pk, key, count, last, last_step, min, max FROM metric_series WHERE run_pk {pks}
ORDER BY run_pk, key"""
_DATASETS = """
SELECT run_pk, key, dataset_version FROM run_datasets WHERE run_pk {pks}
ORDER BY run_pk, key, dataset_version"""
_DROPPED = """
SELECT run_pk, sum(dropped) FROM run_writers WHERE run_pk {pks} AND dropped > 0
GROUP BY run_pk"""
_GOALS = """
SELECT model_pk, key, goal FROM model_goals
WHERE model_pk IN (SELECT model_pk FROM runs WHERE pk {pks})"""
_MARKS = """
SELECT pk, model_pk, create_time, revision, ingest_mark, heartbeat_time FROM runs WHERE pk {pks}"""
_READS = (_RUNS, _PARAMS, _TAGS, _SERIES, _DATASETS, _DROPPED, _GOALS)
_CODE = msgspec.msgpack.Decoder(CodeSource)
_ENVIRONMENT = msgspec.msgpack.Decoder(RuntimeEnvironment)


def uses_dataset(run_pk: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare the datasets that a run used with the name of one, or of one version."""

    def compile_use(path: tuple[str, ...], operator: Operator, literal: Literal) -> Any:
        found = RUN_DATASETS.c.dataset_version
        used = sa.exists().where(RUN_DATASETS.c.run_pk == run_pk)
        if path:
            raise FilterProblemError("has nothing below it")
        if not isinstance(literal, Presence):
            if operator is not Operator.EQUAL or not isinstance(literal, str):
                raise FilterProblemError("is compared by = with a quoted name")
            used = used.where(_is_dataset(found, literal))
        return used.correlate_except(RUN_DATASETS)

    return compile_use


def _is_dataset(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    if DatasetVersionName.expression.fullmatch(name):
        return column == name
    if DatasetName.expression.fullmatch(name):
        # What begins with the prefix: "0" is the character after "/".
        return sa.and_(column >= f"{name}/versions/", column < f"{name}/versions0")
    raise FilterProblemError(
        'wants a name such as "projects/default/datasets/sales", or with "/versions/3"'
    )


def _dataset_probe(
    scope: fields.Scope, path: tuple[str, ...], operator: Operator, literal: Literal
) -> sa.Select[Any] | None:
    if not isinstance(literal, str):
        return None
    clause = _is_dataset(RUN_DATASETS.c.dataset_version, literal)
    return sa.select(RUN_DATASETS.c.run_pk).where(clause).distinct()


FIELDS: Mapping[str, fields.Field] = {
    "id": fields.text(RUNS.c.run, indexed=True),
    "display_name": fields.text(RUNS.c.display_name),
    "state": fields.state(RUNS.c.state, enum_field(RUNS.c.state, list(RunState))),
    "group": fields.text(RUNS.c.run_group, indexed=True),
    "creator": fields.text(RUNS.c.creator),
    "create_time": fields.moment(RUNS.c.create_time),
    "end_time": fields.moment(RUNS.c.end_time),
    "build": fields.text(RUNS.c.build, indexed=True),
    "image": fields.text(RUNS.c.image),
    "commit": fields.text(RUNS.c.git_commit, indexed=True),
    "branch": fields.text(RUNS.c.git_branch),
    "dataset": fields.Field(uses_dataset(RUNS.c.pk), probe=_dataset_probe),
    "tags": fields.tags(RUN_TAGS, "run_pk", RUNS.c.pk),
    "params": fields.params(RUN_PARAMS, "run_pk", RUNS.c.pk),
}
SUBJECT = fields.Subject(
    word="runs",
    table=RUNS,
    owner="run_pk",
    metrics=SERIES,
    fields=FIELDS,
    shown=lambda deleted: () if deleted else (RUNS.c.delete_time.is_(None),),
)


Mark = tuple[int, ...]


def find_marks(
    connection: Connection, parent: ModelName, listing: Listing, *, seconds: float
) -> tuple[dict[int, Mark], str]:
    """Find a page of a model's runs, or of all models' (`-`), and the next page's token.

    Returns:
        By the rows of the runs, in order, a mark: while it is the same, so is the run.

    Raises:
        ServiceError: see `search`.
    """
    pks, token = search(connection, SUBJECT, parent, listing, seconds=seconds)
    if not pks:
        return {}, token
    rows, goals = _read(connection, pks, (_MARKS, _GOALS))
    by_model: dict[int, list[Any]] = defaultdict(list)
    for model, key, goal in goals:
        by_model[model].append((key, goal))
    said = {model: hash(frozenset(found)) for model, found in by_model.items()}
    marks = {row[0]: (*row[2:], said.get(row[1], 0)) for row in rows}
    # One that was purged meanwhile is left out.
    return {pk: marks[pk] for pk in pks if pk in marks}, token


def find_runs(connection: Connection, names: Sequence[RunName]) -> list[Run]:
    """Return those of some runs of one project that exist, as lists show them."""
    pairs = sa.tuple_(MODELS.c.model, RUNS.c.run)
    query = (
        sa.select(RUNS.c.pk)
        .join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
        .where(MODELS.c.project == names[0].project)
        .where(pairs.in_([(name.model, name.run) for name in names]))
    )
    return list(load_runs(connection, list(connection.execute(query).scalars())).values())


def load_runs(connection: Connection, pks: Sequence[int]) -> dict[int, Run]:
    """Return runs by their rows, without packages, diffs and notes."""
    if not pks:
        return {}
    rows, params, tags, series, datasets, dropped, goals = _read(connection, pks, _READS)
    goal_of = {(model, key): MetricGoal(goal) for model, key, goal in goals}
    model_of = {row[0]: row[19] for row in rows}
    params_of: dict[int, dict[str, Any]] = defaultdict(dict)
    for pk, key, value in params:
        params_of[pk][key] = unpack_param(value)
    tags_of: dict[int, dict[str, str]] = defaultdict(dict)
    for pk, key, value in tags:
        tags_of[pk][key] = value
    metrics_of: dict[int, list[MetricSummary]] = defaultdict(list)
    for pk, key, count, last, step, least, greatest in series:
        goal = goal_of.get((model_of.get(pk), key))
        metrics_of[pk].append(MetricSummary(key, count, float(last), step, least, greatest, goal))
    uses_of: dict[int, list[DatasetUse]] = defaultdict(list)
    for pk, role, version in datasets:
        uses_of[pk].append(DatasetUse(role, version))
    lost = {pk: int(total) for pk, total in dropped}
    return {
        row[0]: Run(
            name=RunName(row[1], row[2], row[3]),
            display_name=row[4],
            state=RunState(row[5]),
            failure=None if row[6] is None else Failure(row[6], row[7]),
            tags=tags_of[row[0]],
            params=params_of[row[0]],
            metrics=tuple(metrics_of[row[0]]),
            code=None if row[11] is None else _CODE.decode(row[11]),
            environment=None if row[12] is None else _ENVIRONMENT.decode(row[12]),
            datasets=tuple(uses_of[row[0]]),
            image=row[10],
            build=row[9],
            group=row[8],
            dropped=lost.get(row[0], 0),
            creator=row[13],
            create_time=EPOCH + timedelta(microseconds=row[14]),
            end_time=_moment(row[15]),
            heartbeat_time=EPOCH + timedelta(microseconds=row[16]),
            delete_time=_moment(row[17]),
            revision=row[18],
        )
        for row in rows
    }


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)


def _read(connection: Connection, pks: Sequence[int], reads: Sequence[str]) -> list[list[Any]]:
    """Return the rows of each of some reads, as the driver gives them."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        is_one = "= ANY(%s::bigint[])"
        with driver.pipeline():
            cursors = [
                driver.cursor(binary=True).execute(sql.format(pks=is_one), (list(pks),))
                for sql in reads
            ]
            return [cursor.fetchall() for cursor in cursors]
    is_one, given = "IN (SELECT value FROM json_each(?))", (json.dumps(list(pks)),)
    return [driver.execute(sql.format(pks=is_one), given).fetchall() for sql in reads]
