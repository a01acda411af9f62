"""Queries that find what stands behind the names compared: as many for two names as for all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import BuildName, DatasetVersionName, ModelName, RunName, VersionName
from services.metadata.comparisons.domain import Subject
from services.metadata.datasets import store as dataset_store
from services.metadata.datasets.domain import DatasetVersion
from services.metadata.models.domain import Version, VersionState
from services.metadata.models.store import MODELS, VERSIONS
from services.metadata.models.version_store import find_versions
from services.metadata.runs.domain import Run
from services.metadata.runs.store import RUNS, find_runs

SubjectName = RunName | VersionName | BuildName


def find_subjects(
    connection: Connection, names: Collection[SubjectName]
) -> dict[SubjectName, Subject]:
    """Return what names stand for; without those that stand for nothing."""
    builds = {str(name) for name in names if isinstance(name, BuildName)}
    built = _newest_versions(connection, VERSIONS.c.build, builds)
    versions = _versions(
        connection, [*built.values(), *(n for n in names if isinstance(n, VersionName))]
    )
    trained = _newest_runs(connection, builds.difference(built))
    own = [*trained.values(), *(n for n in names if isinstance(n, RunName))]
    behind = (RunName.parse(v.run) for v in versions.values() if v.run)
    runs = {run.name: run for run in find_runs(connection, {*own, *behind})}
    results = _newest_versions(connection, VERSIONS.c.run, {str(name) for name in own})
    found: dict[SubjectName, Subject] = {}
    for name in names:
        result = name if isinstance(name, VersionName) else built.get(str(name))
        if result in versions:
            found[name] = _of_version(name, versions[result], runs)
            continue
        run = name if isinstance(name, RunName) else trained.get(str(name))
        if run in runs:
            found[name] = _of_run(name, runs[run], results.get(str(run)))
    return found


def find_dataset_versions(
    connection: Connection, names: Collection[str]
) -> dict[str, DatasetVersion | None]:
    """Return dataset versions by name, profiles included; None for one that is gone."""
    return {
        name: dataset_store.find_version(connection, DatasetVersionName.parse(name))
        for name in names
    }


def _of_version(name: SubjectName, version: Version, runs: Mapping[RunName, Run]) -> Subject:
    run = runs.get(RunName.parse(version.run)) if version.run else None
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


def _of_run(name: SubjectName, run: Run, version: VersionName | None) -> Subject:
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


def _versions(connection: Connection, names: Iterable[VersionName]) -> dict[VersionName, Version]:
    wanted = list(set(names))
    return {v.name: v for v in find_versions(connection, wanted)} if wanted else {}


def _newest_versions(
    connection: Connection, origin: sa.Column[str], names: Collection[str]
) -> dict[str, VersionName]:
    """Return the newest version of each origin that counts: neither FAILED nor deleted."""
    counts = sa.and_(
        origin.in_(names),
        VERSIONS.c.state != VersionState.FAILED.value,
        VERSIONS.c.delete_time.is_(None),
    )
    newest = sa.select(sa.func.max(VERSIONS.c.pk)).where(counts).group_by(origin)
    query = (
        sa.select(origin.label("origin"), MODELS.c.project, MODELS.c.model, VERSIONS.c.number)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(VERSIONS.c.pk.in_(newest))
    )
    return {
        row.origin: ModelName(row.project, row.model).version(row.number)
        for row in (connection.execute(query) if names else ())
    }


def _newest_runs(connection: Connection, builds: Collection[str]) -> dict[str, RunName]:
    """Return the newest run of each build that is not deleted."""
    counts = sa.and_(RUNS.c.build.in_(builds), RUNS.c.delete_time.is_(None))
    newest = sa.select(sa.func.max(RUNS.c.pk)).where(counts).group_by(RUNS.c.build)
    query = (
        sa.select(RUNS.c.build, MODELS.c.project, MODELS.c.model, RUNS.c.run)
        .join(MODELS, MODELS.c.pk == RUNS.c.model_pk)
        .where(RUNS.c.pk.in_(newest))
    )
    return {
        row.build: RunName(row.project, row.model, row.run)
        for row in (connection.execute(query) if builds else ())
    }
