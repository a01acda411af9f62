"""Queries that delete models, and that remove what hangs on those that are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import ModelName, RunName
from services.metadata.lineage.store import USES
from services.metadata.models.domain import USERS_NAMED, VersionState
from services.metadata.models.lifecycle_store import remove_versions
from services.metadata.models.releases_store import Release, owe
from services.metadata.models.store import (
    ALIAS_CHANGES,
    ALIASES,
    MODEL_GOALS,
    MODEL_LABELS,
    MODELS,
    USED_NUMBERS,
    VERSIONS,
)
from services.metadata.retention.store import RETENTIONS
from services.metadata.runs.domain import RunState
from services.metadata.runs.store import RUNS
from services.metadata.runs.upkeep_store import remove_run
from services.metadata.schema import upsert

BATCH = 100
"""So many versions or runs are removed in one transaction."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A model that is gone, what hangs on it not yet."""

    pk: int
    name: ModelName
    purger: str


def users_of(connection: Connection, model_pk: int, name: ModelName) -> list[str]:
    """Return what a model cannot go for: some aliases, deployments, runs, versions."""
    of_model = VERSIONS.c.model_pk == model_pk
    aliases = sa.select(ALIASES.c.alias).where(ALIASES.c.model_pk == model_pk)
    uses = sa.select(USES.c.user_name).join(VERSIONS, VERSIONS.c.pk == USES.c.version_pk)
    runs = sa.select(RUNS.c.run).where(
        RUNS.c.model_pk == model_pk,
        RUNS.c.state == RunState.RUNNING.value,
        RUNS.c.delete_time.is_(None),
    )
    pending = sa.select(VERSIONS.c.number).where(
        of_model, VERSIONS.c.state == VersionState.PENDING.value, VERSIONS.c.delete_time.is_(None)
    )
    asked: list[tuple[sa.Select[Any], Callable[[Any], object]]] = [
        (aliases.order_by(ALIASES.c.alias), name.alias),
        (uses.where(of_model, USES.c.end_time.is_(None)).distinct(), str),
        (runs.order_by(RUNS.c.pk), lambda run: RunName(name.project, name.model, run)),
        (pending.order_by(VERSIONS.c.number), name.version),
    ]
    return [
        str(name_of(found))
        for query, name_of in asked
        for found in connection.execute(query.limit(USERS_NAMED + 1)).scalars()
    ]


def set_deleted(connection: Connection, model_pk: int, time: datetime | None) -> None:
    """Delete a model, or take that back."""
    changed = {"delete_time": time, "revision": MODELS.c.revision + 1}
    connection.execute(MODELS.update().where(MODELS.c.pk == model_pk).values(**changed))


def begin_removal(connection: Connection, model_pk: int, name: ModelName, purger: str) -> None:
    """Take a model's name away, and remember the numbers that its versions had."""
    is_it = MODELS.c.pk == model_pk
    number = connection.execute(sa.select(MODELS.c.last_number).where(is_it)).scalar_one()
    used = {"project": name.project, "model": name.model, "last_number": number}
    upsert(connection, USED_NUMBERS, ["project", "model"], [used])
    # No id begins with a tilde: nothing finds what hangs on the model by name any more.
    gone = {"model": f"~{model_pk}", "removed_id": name.model, "purger": purger}
    connection.execute(MODELS.update().where(is_it).values(**gone))


def some_models(connection: Connection, project: str) -> list[ModelName]:
    """Return some of a project's models that are not deleted."""
    kept = sa.and_(MODELS.c.project == project, MODELS.c.delete_time.is_(None))
    query = sa.select(MODELS.c.model).where(kept).order_by(MODELS.c.model)
    found = connection.execute(query.limit(USERS_NAMED + 1)).scalars()
    return [ModelName(project, model) for model in found]


def begin_removals(connection: Connection, project: str, purger: str) -> None:
    """Take the names of all of a project's models away, which must be deleted."""
    left = sa.and_(MODELS.c.project == project, MODELS.c.removed_id.is_(None))
    for row in connection.execute(sa.select(MODELS.c.pk, MODELS.c.model).where(left)).all():
        begin_removal(connection, row.pk, ModelName(project, row.model), purger)


def list_removals(connection: Connection) -> list[Removal]:
    """Return some models of which there is something left to remove, oldest first."""
    query = sa.select(MODELS).where(MODELS.c.removed_id.is_not(None)).order_by(MODELS.c.pk)
    return [
        Removal(row.pk, ModelName(row.project, row.removed_id), row.purger)
        for row in connection.execute(query.limit(BATCH))
    ]


def remove_some(connection: Connection, removal: Removal, now: datetime) -> bool:
    """Remove a part of what is left of a model; say whether there may be more."""
    versions = sa.select(VERSIONS.c.pk, VERSIONS.c.number)
    found = connection.execute(versions.where(VERSIONS.c.model_pk == removal.pk).limit(BATCH)).all()
    if found:
        remove_versions(connection, [row.pk for row in found])
        holders = [str(removal.name.version(row.number)) for row in found]
    else:
        runs = sa.select(RUNS.c.pk, RUNS.c.run).where(RUNS.c.model_pk == removal.pk).limit(BATCH)
        found = connection.execute(runs).all()
        for row in found:
            remove_run(connection, row.pk)
        project, model = removal.name.project, removal.name.model
        holders = [str(RunName(project, model, row.run)) for row in found]
    owe(connection, [Release(holder, removal.purger) for holder in holders], now)
    if not found:
        for table in (MODEL_LABELS, MODEL_GOALS, RETENTIONS, ALIAS_CHANGES):
            connection.execute(table.delete().where(table.c.model_pk == removal.pk))
        connection.execute(MODELS.delete().where(MODELS.c.pk == removal.pk))
    return bool(found)
