"""Queries of aliases and their history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import WILDCARD, AliasName, ModelName, VersionName
from services.metadata.listing import Listing, Page
from services.metadata.models.domain import Alias, AliasChange
from services.metadata.models.store import ALIAS_CHANGES, ALIASES, MODELS, VERSIONS
from services.metadata.schema import Sort, fetch_page, upsert

_TICK = timedelta(microseconds=1)


def find_alias(connection: Connection, name: AliasName) -> Alias | None:
    """Return an alias, or None."""
    query = _select().where(_of(name.parent), ALIASES.c.alias == name.alias)
    row = connection.execute(query).first()
    return None if row is None else _alias(row)


def find_aliases(connection: Connection, names: Sequence[AliasName]) -> list[Alias]:
    """Return those of some aliases of one project that exist."""
    pairs = sa.tuple_(MODELS.c.model, ALIASES.c.alias)
    query = _select().where(
        MODELS.c.project == names[0].project,
        pairs.in_([(name.model, name.alias) for name in names]),
    )
    return [_alias(row) for row in connection.execute(query)]


def list_aliases(connection: Connection, parent: ModelName, listing: Listing) -> Page[Alias]:
    """Return a page of a model's aliases by id."""
    sorts = [Sort(ALIASES.c.alias, str)]
    query = _select().where(_of(parent))
    scope = f"aliases\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_alias(row) for row in rows), token)


def alias_at(connection: Connection, name: AliasName, as_of: datetime) -> Alias | None:
    """Return an alias as it was at a moment, or None when it pointed nowhere."""
    query = (
        sa.select(ALIAS_CHANGES)
        .join(MODELS, MODELS.c.pk == ALIAS_CHANGES.c.model_pk)
        .where(_of(name.parent), ALIAS_CHANGES.c.alias == name.alias)
        .where(ALIAS_CHANGES.c.change_time <= as_of)
        .order_by(ALIAS_CHANGES.c.pk.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None or row.new_number is None:
        return None
    return Alias(name, name.parent.version(row.new_number), row.pk, row.change_time)


def put_alias(
    connection: Connection,
    model_pk: int,
    version_pk: int,
    *,
    change: AliasChange,
    old: VersionName | None,
    new: VersionName,
) -> Alias:
    """Point an alias to a version and record it; the model must be locked."""
    number, time = _record(connection, model_pk, change, old, new)
    row = {
        "model_pk": model_pk,
        "alias": change.alias.alias,
        "version_pk": version_pk,
        "change_pk": number,
        "update_time": time,
    }
    upsert(connection, ALIASES, ["model_pk", "alias"], [row])
    return Alias(change.alias, new, number, time)


def drop_alias(
    connection: Connection, model_pk: int, *, change: AliasChange, old: VersionName
) -> None:
    """Delete an alias and record it; the model must be locked."""
    is_it = sa.and_(ALIASES.c.model_pk == model_pk, ALIASES.c.alias == change.alias.alias)
    connection.execute(ALIASES.delete().where(is_it))
    _record(connection, model_pk, change, old, None)


def list_changes(connection: Connection, parent: AliasName, listing: Listing) -> Page[AliasChange]:
    """Return a page of an alias's history, newest first; `-` for all of the model's."""
    query = (
        sa.select(ALIAS_CHANGES)
        .join(MODELS, MODELS.c.pk == ALIAS_CHANGES.c.model_pk)
        .where(_of(parent.parent))
    )
    if parent.alias != WILDCARD:
        query = query.where(ALIAS_CHANGES.c.alias == parent.alias)
    sorts = [Sort(ALIAS_CHANGES.c.pk, int, descending=True)]
    scope = f"alias-changes\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_change(row, parent.parent) for row in rows), token)


def _record(
    connection: Connection,
    model_pk: int,
    change: AliasChange,
    old: VersionName | None,
    new: VersionName | None,
) -> tuple[int, datetime]:
    """Append to an alias's history; its times rise, whatever a replica's clock says."""
    newest = sa.select(sa.func.max(ALIAS_CHANGES.c.change_time)).where(
        ALIAS_CHANGES.c.model_pk == model_pk, ALIAS_CHANGES.c.alias == change.alias.alias
    )
    last = connection.execute(newest).scalar()
    time = change.change_time if last is None else max(change.change_time, last + _TICK)
    statement = (
        ALIAS_CHANGES.insert()
        .values(
            model_pk=model_pk,
            alias=change.alias.alias,
            old_number=old.version if old else None,
            new_number=new.version if new else None,
            actor=change.actor,
            reason=change.reason,
            change_time=time,
        )
        .returning(ALIAS_CHANGES.c.pk)
    )
    return int(connection.execute(statement).scalar_one()), time


def _select() -> sa.Select[Any]:
    return (
        sa.select(ALIASES, MODELS.c.project, MODELS.c.model, VERSIONS.c.number)
        .join(MODELS, MODELS.c.pk == ALIASES.c.model_pk)
        .join(VERSIONS, VERSIONS.c.pk == ALIASES.c.version_pk)
    )


def _of(name: ModelName) -> sa.ColumnElement[bool]:
    return sa.and_(MODELS.c.project == name.project, MODELS.c.model == name.model)


def _alias(row: Row[Any]) -> Alias:
    model = ModelName(row.project, row.model)
    return Alias(model.alias(row.alias), model.version(row.number), row.change_pk, row.update_time)


def _change(row: Row[Any], model: ModelName) -> AliasChange:
    return AliasChange(
        alias=model.alias(row.alias),
        old_version=str(model.version(row.old_number)) if row.old_number else "",
        new_version=str(model.version(row.new_number)) if row.new_number else "",
        actor=row.actor,
        reason=row.reason,
        change_time=row.change_time,
    )
