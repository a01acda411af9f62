"""Queries of lineage: one step of the graph at a time, for many names at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import (
    AliasName,
    DatasetName,
    DatasetVersionName,
    ModelName,
    RunName,
    VersionName,
)
from services.metadata.datasets.store import DATASET_VERSIONS, DATASETS
from services.metadata.lineage.domain import Edge, Kind, Node
from services.metadata.lineage.store import USES
from services.metadata.models.evaluation_store import EVALUATIONS
from services.metadata.models.store import ALIASES, MODELS, VERSIONS
from services.metadata.runs.store import RUN_DATASETS, RUNS

_OF_RUN = RUNS.join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
_OF_VERSION = VERSIONS.join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
_MODEL = (MODELS.c.project, MODELS.c.model)


def versions_of(connection: Connection, name: ModelName) -> list[str]:
    """Return the names of a model's versions."""
    query = sa.select(VERSIONS.c.number).select_from(_OF_VERSION)
    found = query.where(MODELS.c.project == name.project, MODELS.c.model == name.model)
    numbers = connection.execute(found.order_by(VERSIONS.c.number)).scalars()
    return [str(name.version(number)) for number in numbers]


def versions_of_dataset(connection: Connection, name: DatasetName) -> list[str]:
    """Return the names of a dataset's versions."""
    query = (
        sa.select(DATASET_VERSIONS.c.number)
        .join(DATASETS, DATASETS.c.pk == DATASET_VERSIONS.c.dataset_pk)
        .where(DATASETS.c.project == name.project, DATASETS.c.dataset == name.dataset)
        .order_by(DATASET_VERSIONS.c.number)
    )
    numbers = connection.execute(query).scalars()
    return [str(DatasetVersionName(name.project, name.dataset, number)) for number in numbers]


def edges_down(
    connection: Connection, kind: Kind, names: Sequence[str], *, past: bool
) -> list[Edge]:
    """Return what came of things of one kind."""
    if kind is Kind.DATASET_VERSION:
        is_used = RUN_DATASETS.c.dataset_version.in_(names)
        is_measured = EVALUATIONS.c.dataset_version.in_(names)
        return [*_data_of_runs(connection, is_used), *_data_of_versions(connection, is_measured)]
    if kind is Kind.BUILD:
        return _builds_of_runs(connection, RUNS.c.build.in_(names))
    if kind is Kind.RUN:
        return _runs_of_versions(connection, VERSIONS.c.run.in_(names))
    if kind is Kind.VERSION:
        of_these = _is_version(names)
        return [*_aliases(connection, of_these), *_uses(connection, of_these, past=past)]
    return []


def edges_up(connection: Connection, kind: Kind, names: Sequence[str], *, past: bool) -> list[Edge]:
    """Return what things of one kind came from."""
    if kind is Kind.DEPLOYMENT:
        return _uses(connection, USES.c.user_name.in_(names), past=past)
    if kind is Kind.ALIAS:
        parsed = [AliasName.parse(name) for name in names]
        pairs = sa.tuple_(MODELS.c.model, ALIASES.c.alias)
        these = pairs.in_([(name.model, name.alias) for name in parsed])
        return _aliases(connection, sa.and_(MODELS.c.project == parsed[0].project, these))
    if kind is Kind.VERSION:
        of_these = _is_version(names)
        return [
            *_runs_of_versions(connection, of_these),
            *_data_of_versions(connection, of_these),
        ]
    if kind is Kind.RUN:
        of_these = _is_run(names)
        return [*_data_of_runs(connection, of_these), *_builds_of_runs(connection, of_these)]
    return []


def nodes_of(connection: Connection, kind: Kind, names: Sequence[str]) -> list[Node]:
    """Return what is known of things of one kind; those that are gone are left out."""
    if kind is Kind.DATASET_VERSION:
        return _dataset_nodes(connection, names)
    if kind is Kind.RUN:
        columns = (RUNS.c.run, RUNS.c.display_name, RUNS.c.state, RUNS.c.create_time)
        query = sa.select(*_MODEL, *columns, RUNS.c.delete_time).select_from(_OF_RUN)
        return [
            Node(
                str(RunName(row.project, row.model, row.run)),
                kind,
                row.display_name,
                "DELETED" if row.delete_time else row.state,
                row.create_time,
            )
            for row in connection.execute(query.where(_is_run(names)))
        ]
    if kind is Kind.VERSION:
        return _version_nodes(connection, names)
    if kind is Kind.ALIAS:
        return _alias_nodes(connection, names)
    if kind is Kind.DEPLOYMENT:
        return _deployment_nodes(connection, names)
    return [Node(name, kind, "", "", None) for name in names if _has_build(connection, name)]


def _has_build(connection: Connection, name: str) -> bool:
    for column in (RUNS.c.build, VERSIONS.c.build):
        if connection.execute(sa.select(column).where(column == name).limit(1)).first():
            return True
    return False


def _dataset_nodes(connection: Connection, names: Sequence[str]) -> list[Node]:
    parsed = [DatasetVersionName.parse(name) for name in names]
    pairs = sa.tuple_(DATASETS.c.dataset, DATASET_VERSIONS.c.number)
    query = (
        sa.select(
            DATASETS.c.project,
            DATASETS.c.dataset,
            DATASET_VERSIONS.c.number,
            DATASET_VERSIONS.c.digest,
            DATASET_VERSIONS.c.create_time,
        )
        .join(DATASETS, DATASETS.c.pk == DATASET_VERSIONS.c.dataset_pk)
        .where(DATASETS.c.project == parsed[0].project)
        .where(pairs.in_([(name.dataset, name.version) for name in parsed]))
    )
    return [
        Node(
            str(DatasetVersionName(row.project, row.dataset, row.number)),
            Kind.DATASET_VERSION,
            row.digest[:12],
            "",
            row.create_time,
        )
        for row in connection.execute(query)
    ]


def _version_nodes(connection: Connection, names: Sequence[str]) -> list[Node]:
    columns = (
        VERSIONS.c.number,
        VERSIONS.c.label,
        VERSIONS.c.state,
        VERSIONS.c.create_time,
        VERSIONS.c.archive_time,
        VERSIONS.c.delete_time,
    )
    query = sa.select(*_MODEL, *columns).select_from(_OF_VERSION).where(_is_version(names))
    return [
        Node(
            str(VersionName(row.project, row.model, row.number)),
            Kind.VERSION,
            row.label,
            "DELETED" if row.delete_time else "ARCHIVED" if row.archive_time else row.state,
            row.create_time,
        )
        for row in connection.execute(query)
    ]


def _alias_nodes(connection: Connection, names: Sequence[str]) -> list[Node]:
    parsed = [AliasName.parse(name) for name in names]
    pairs = sa.tuple_(MODELS.c.model, ALIASES.c.alias)
    query = (
        sa.select(*_MODEL, ALIASES.c.alias, ALIASES.c.update_time)
        .join(MODELS, MODELS.c.pk == ALIASES.c.model_pk)
        .where(MODELS.c.project == parsed[0].project)
        .where(pairs.in_([(name.model, name.alias) for name in parsed]))
    )
    return [
        Node(str(AliasName(row.project, row.model, row.alias)), Kind.ALIAS, "", "", row.update_time)
        for row in connection.execute(query)
    ]


def _deployment_nodes(connection: Connection, names: Sequence[str]) -> list[Node]:
    lasting = sa.func.sum(sa.case((USES.c.end_time.is_(None), 1), else_=0)).label("lasting")
    began = sa.func.max(USES.c.start_time, type_=USES.c.start_time.type).label("began")
    query = sa.select(USES.c.user_name, lasting, began).where(USES.c.user_name.in_(names))
    return [
        Node(row.user_name, Kind.DEPLOYMENT, "", "LIVE" if row.lasting else "ENDED", row.began)
        for row in connection.execute(query.group_by(USES.c.user_name))
    ]


def _data_of_runs(connection: Connection, which: sa.ColumnElement[bool]) -> list[Edge]:
    query = (
        sa.select(*_MODEL, RUNS.c.run, RUN_DATASETS.c.key, RUN_DATASETS.c.dataset_version)
        .select_from(_OF_RUN)
        .join(RUN_DATASETS, RUN_DATASETS.c.run_pk == RUNS.c.pk)
        .where(which)
    )
    return [
        Edge(row.dataset_version, str(RunName(row.project, row.model, row.run)), row.key)
        for row in connection.execute(query)
    ]


def _data_of_versions(connection: Connection, which: sa.ColumnElement[bool]) -> list[Edge]:
    query = (
        sa.select(*_MODEL, VERSIONS.c.number, EVALUATIONS.c.dataset_version)
        .select_from(_OF_VERSION)
        .join(EVALUATIONS, EVALUATIONS.c.version_pk == VERSIONS.c.pk)
        .where(which, EVALUATIONS.c.dataset_version != "")
        .distinct()
    )
    return [
        Edge(row.dataset_version, _version(row), "evaluated") for row in connection.execute(query)
    ]


def _builds_of_runs(connection: Connection, which: sa.ColumnElement[bool]) -> list[Edge]:
    query = sa.select(*_MODEL, RUNS.c.run, RUNS.c.build).select_from(_OF_RUN)
    return [
        Edge(row.build, str(RunName(row.project, row.model, row.run)), "ran")
        for row in connection.execute(query.where(which, RUNS.c.build != ""))
    ]


def _runs_of_versions(connection: Connection, which: sa.ColumnElement[bool]) -> list[Edge]:
    query = sa.select(*_MODEL, VERSIONS.c.number, VERSIONS.c.run).select_from(_OF_VERSION)
    return [
        Edge(row.run, _version(row), "produced")
        for row in connection.execute(query.where(which, VERSIONS.c.run != ""))
    ]


def _aliases(connection: Connection, which: sa.ColumnElement[bool]) -> list[Edge]:
    query = (
        sa.select(*_MODEL, VERSIONS.c.number, ALIASES.c.alias)
        .select_from(_OF_VERSION)
        .join(ALIASES, ALIASES.c.version_pk == VERSIONS.c.pk)
        .where(which)
    )
    return [
        Edge(_version(row), str(AliasName(row.project, row.model, row.alias)), "points to")
        for row in connection.execute(query)
    ]


def _uses(connection: Connection, which: sa.ColumnElement[bool], *, past: bool) -> list[Edge]:
    query = (
        sa.select(*_MODEL, VERSIONS.c.number, USES.c.user_name, USES.c.end_time.label("ended"))
        .select_from(_OF_VERSION)
        .join(USES, USES.c.version_pk == VERSIONS.c.pk)
        .where(which)
    )
    if not past:
        query = query.where(USES.c.end_time.is_(None))
    return [
        Edge(_version(row), row.user_name, "used by" if row.ended else "uses")
        for row in connection.execute(query)
    ]


def _is_run(names: Sequence[str]) -> sa.ColumnElement[bool]:
    parsed = [RunName.parse(name) for name in names]
    pairs = sa.tuple_(MODELS.c.model, RUNS.c.run)
    return sa.and_(
        MODELS.c.project == parsed[0].project,
        pairs.in_([(name.model, name.run) for name in parsed]),
    )


def _is_version(names: Sequence[str]) -> sa.ColumnElement[bool]:
    parsed = [VersionName.parse(name) for name in names]
    pairs = sa.tuple_(MODELS.c.model, VERSIONS.c.number)
    return sa.and_(
        MODELS.c.project == parsed[0].project,
        pairs.in_([(name.model, name.version) for name in parsed]),
    )


def _version(row: Any) -> str:
    return str(VersionName(row.project, row.model, row.number))
