"""Queries that change runs after they came to be, up to their end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import RunName, VersionName
from services.metadata.models.store import MODELS, VERSIONS
from services.metadata.runs import points_store
from services.metadata.runs.domain import RunEdit
from services.metadata.runs.store import (
    RUN_DATASETS,
    RUN_PARAMS,
    RUN_TAGS,
    RUN_WRITERS,
    RUNS,
    SERIES,
    model_of,
    series_of,
)

_TEXTS = ("display_name", "notes")


def edit_run(connection: Connection, run_pk: int, edit: RunEdit, paths: Collection[str]) -> None:
    """Set those fields of a run that `paths` names, and count the write."""
    _set(connection, run_pk, **{path: getattr(edit, path) for path in _TEXTS if path in paths})
    if "tags" in paths:
        connection.execute(RUN_TAGS.delete().where(RUN_TAGS.c.run_pk == run_pk))
        owner = {"run_pk": run_pk, "model_pk": model_of(connection, run_pk)}
        rows = [{**owner, "key": key, "value": value} for key, value in edit.tags.items()]
        if rows:
            connection.execute(RUN_TAGS.insert(), rows)


def set_deleted(connection: Connection, run_pk: int, time: datetime | None) -> None:
    """Delete a run, or take that back."""
    _set(connection, run_pk, delete_time=time)


def versions_of(connection: Connection, name: RunName, *, limit: int) -> list[VersionName]:
    """Return the newest versions that came from a run, deleted ones too."""
    query = (
        sa.select(VERSIONS.c.number)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(
            VERSIONS.c.run == str(name),
            MODELS.c.project == name.project,
            MODELS.c.model == name.model,
        )
        .order_by(VERSIONS.c.number.desc())
        .limit(limit)
    )
    return [name.parent.version(number) for number in connection.execute(query).scalars()]


def remove_run(connection: Connection, run_pk: int) -> None:
    """Remove a run and all that hangs on it."""
    points_store.delete_points(connection, run_pk, [pk for _, pk in series_of(connection, run_pk)])
    for table in (RUN_TAGS, RUN_PARAMS, RUN_DATASETS, RUN_WRITERS, SERIES):
        connection.execute(table.delete().where(table.c.run_pk == run_pk))
    connection.execute(RUNS.delete().where(RUNS.c.pk == run_pk))


def _set(connection: Connection, run_pk: int, **values: Any) -> None:
    statement = RUNS.update().where(RUNS.c.pk == run_pk)
    connection.execute(statement.values(**values, revision=RUNS.c.revision + 1))
