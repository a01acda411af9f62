"""Queries that change versions after they came to be, up to their end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import ArtifactName, ModelName, VersionName
from services.metadata.lineage.store import drop_uses
from services.metadata.models.domain import PurgedVersion, VersionEdit
from services.metadata.models.evaluation_store import EVALUATIONS
from services.metadata.models.store import (
    ALIASES,
    MODELS,
    VERSION_LABELS,
    VERSION_METRICS,
    VERSION_PARAMS,
    VERSIONS,
)
from services.metadata.signatures.store import SIGNATURES

_TEXTS = ("description", "card", "license")


def edit_version(
    connection: Connection, version_pk: int, edit: VersionEdit, paths: Collection[str]
) -> None:
    """Set those fields of a version that `paths` names, and count the write."""
    texts = {path: getattr(edit, path) for path in _TEXTS if path in paths}
    _set(connection, version_pk, **texts)
    if "labels" in paths:
        connection.execute(VERSION_LABELS.delete().where(VERSION_LABELS.c.version_pk == version_pk))
        rows = [{"version_pk": version_pk, "key": k, "value": v} for k, v in edit.labels.items()]
        if rows:
            connection.execute(VERSION_LABELS.insert(), rows)


def set_archived(connection: Connection, version_pk: int, time: datetime | None) -> None:
    """Archive a version, or take that back."""
    _set(connection, version_pk, archive_time=time)


def set_deleted(connection: Connection, version_pk: int, time: datetime | None) -> None:
    """Delete a version, or take that back."""
    _set(connection, version_pk, delete_time=time)


def aliases_of(connection: Connection, version_pk: int) -> list[str]:
    """Return the ids of the aliases that point to a version."""
    query = sa.select(ALIASES.c.alias).where(ALIASES.c.version_pk == version_pk)
    return list(connection.execute(query.order_by(ALIASES.c.alias)).scalars())


def begin_purge(connection: Connection, version_pk: int, *, purger: str, now: datetime) -> None:
    """Remove all of a version but what is needed to give its bytes back."""
    for table in (VERSION_LABELS, VERSION_PARAMS, VERSION_METRICS, EVALUATIONS, SIGNATURES):
        connection.execute(table.delete().where(table.c.version_pk == version_pk))
    drop_uses(connection, version_pk)
    gone = {"taken_label": None, "run": "", "build": "", "description": "", "card": ""}
    _set(connection, version_pk, purge_time=now, purger=purger, **gone)


def end_purge(connection: Connection, name: VersionName) -> None:
    """Remove what is left of a version; there may be nothing."""
    connection.execute(VERSIONS.delete().where(_is_purged(name)))


def defer_purge(connection: Connection, name: VersionName, now: datetime) -> None:
    """Put a purge that cannot be finished behind the others."""
    connection.execute(VERSIONS.update().where(_is_purged(name)).values(purge_time=now))


def find_purged(connection: Connection, name: VersionName) -> PurgedVersion | None:
    """Return a version whose purge is half done, or None."""
    row = connection.execute(_select_purged().where(_is_purged(name))).first()
    return None if row is None else _purged(row)


def list_purged(connection: Connection, *, before: datetime, limit: int) -> list[PurgedVersion]:
    """Return versions whose purge has been half done since before a moment, oldest first."""
    query = _select_purged().where(VERSIONS.c.purge_time < before)
    rows = connection.execute(query.order_by(VERSIONS.c.purge_time).limit(limit))
    return [_purged(row) for row in rows]


def _set(connection: Connection, version_pk: int, **values: Any) -> None:
    values["revision"] = VERSIONS.c.revision + 1
    connection.execute(VERSIONS.update().where(VERSIONS.c.pk == version_pk).values(**values))


def _is_purged(name: VersionName) -> sa.ColumnElement[bool]:
    model = sa.select(MODELS.c.pk).where(
        MODELS.c.project == name.project, MODELS.c.model == name.model
    )
    return sa.and_(
        VERSIONS.c.model_pk == model.scalar_subquery(),
        VERSIONS.c.number == name.version,
        VERSIONS.c.purge_time.is_not(None),
    )


def _select_purged() -> sa.Select[Any]:
    return sa.select(
        MODELS.c.project, MODELS.c.model, VERSIONS.c.number, VERSIONS.c.artifact, VERSIONS.c.purger
    ).join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)


def _purged(row: Row[Any]) -> PurgedVersion:
    name = ModelName(row.project, row.model).version(row.number)
    return PurgedVersion(name, str(ArtifactName(row.project, row.artifact)), row.purger)
