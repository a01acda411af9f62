"""Queries that find what stands behind the names compared."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import BuildName, DatasetVersionName, ModelName, RunName, VersionName
from services.metadata.comparisons.domain import Subject
from services.metadata.datasets import store as dataset_store
from services.metadata.datasets.domain import DatasetVersion
from services.metadata.models import version_store
from services.metadata.models.domain import Version, VersionState
from services.metadata.models.store import MODELS, VERSIONS
from services.metadata.runs.domain import Run
from services.metadata.runs.store import RUNS, find_run

SubjectName = RunName | VersionName | BuildName


def find_subject(connection: Connection, name: SubjectName) -> Subject | None:
    """Return what a name stands for, or None."""
    if isinstance(name, VersionName):
        version = version_store.find_version(connection, name)
        return None if version is None else _of_version(connection, name, version)
    if isinstance(name, RunName):
        run = find_run(connection, name)
        return None if run is None else _of_run(connection, name, run)
    version_name = _newest_version(connection, VERSIONS.c.build == str(name))
    if version_name is not None:
        version = version_store.find_version(connection, version_name)
        return None if version is None else _of_version(connection, name, version)
    run = _newest_run(connection, name)
    return None if run is None else _of_run(connection, name, run)


def find_dataset_versions(
    connection: Connection, names: set[str]
) -> dict[str, DatasetVersion | None]:
    """Return dataset versions, profiles included, by name; None for one that is gone."""
    return {
        name: dataset_store.find_version(connection, DatasetVersionName.parse(name))
        for name in names
    }


def _of_version(connection: Connection, name: SubjectName, version: Version) -> Subject:
    run = find_run(connection, RunName.parse(version.run)) if version.run else None
    return Subject(
        name=str(name),
        model=version.name.parent,
        run=version.run,
        version=str(version.name),
        build=version.build,
        title=version.label or (run.display_name if run else ""),
        create_time=version.create_time,
        creator=version.creator,
        params=version.params,
        metrics=version.metrics,
        bundle=version.artifact,
        **_ingredients(run),
    )


def _of_run(connection: Connection, name: SubjectName, run: Run) -> Subject:
    version = _newest_version(connection, VERSIONS.c.run == str(run.name))
    return Subject(
        name=str(name),
        model=run.name.parent,
        run=str(run.name),
        version=str(version) if version else "",
        build=run.build,
        title=run.display_name,
        create_time=run.create_time,
        creator=run.creator,
        params=run.params,
        metrics={summary.key: summary.last for summary in run.metrics},
        **_ingredients(run),
    )


def _ingredients(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {}
    return {
        "environment": run.environment,
        "image": run.image,
        "code": run.code,
        "datasets": run.datasets,
    }


def _newest_version(connection: Connection, origin: sa.ColumnElement[bool]) -> VersionName | None:
    """Return the newest version of an origin that counts: neither FAILED nor deleted."""
    query = (
        sa.select(MODELS.c.project, MODELS.c.model, VERSIONS.c.number)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(
            origin,
            VERSIONS.c.state != VersionState.FAILED.value,
            VERSIONS.c.delete_time.is_(None),
        )
        .order_by(VERSIONS.c.pk.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else ModelName(row.project, row.model).version(row.number)


def _newest_run(connection: Connection, build: BuildName) -> Run | None:
    query = (
        sa.select(MODELS.c.project, MODELS.c.model, RUNS.c.run)
        .join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
        .where(RUNS.c.build == str(build), RUNS.c.delete_time.is_(None))
        .order_by(RUNS.c.pk.desc())
        .limit(1)
    )
    row: Row[Any] | None = connection.execute(query).first()
    return None if row is None else find_run(connection, RunName(row.project, row.model, row.run))
