"""Queries that change versions after they came to be, up to their end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.metadata.lineage.store import USES
from services.metadata.models.domain import VersionEdit
from services.metadata.models.evaluation_store import EVALUATIONS
from services.metadata.models.store import (
    ALIASES,
    VERSION_LABELS,
    VERSION_METRICS,
    VERSION_PARAMS,
    VERSIONS,
)
from services.metadata.signatures.store import SIGNATURES

_TEXTS = ("description", "card", "license", "image")


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


def remove_versions(connection: Connection, version_pks: Sequence[int]) -> None:
    """Remove versions and all that hangs on them; no alias may point to one."""
    for table in (VERSION_LABELS, VERSION_PARAMS, VERSION_METRICS, EVALUATIONS, SIGNATURES, USES):
        connection.execute(table.delete().where(table.c.version_pk.in_(version_pks)))
    connection.execute(VERSIONS.delete().where(VERSIONS.c.pk.in_(version_pks)))


def _set(connection: Connection, version_pk: int, **values: Any) -> None:
    values["revision"] = VERSIONS.c.revision + 1
    connection.execute(VERSIONS.update().where(VERSIONS.c.pk == version_pk).values(**values))
