"""Queries of versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.errors import Reason, ServiceError
from services.common.filtering import (
    FieldCompiler,
    compile_filter,
    enum_field,
    map_field,
    number_field,
    parse_filter,
    parse_order,
    text_field,
    timestamp_field,
)
from services.common.names import WILDCARD, ArtifactName, ModelName, VersionName
from services.metadata.listing import Listing, Page
from services.metadata.models.domain import PendingVersion, Version, VersionDraft, VersionState
from services.metadata.models.labels import label_rank
from services.metadata.models.store import (
    ALIASES,
    MODELS,
    VERSION_LABELS,
    VERSION_METRICS,
    VERSION_PARAMS,
    VERSIONS,
    maps_of,
)
from services.metadata.schema import Sort, by_number, by_time, fetch_page, insert_new, param_field
from services.metadata.values import Failure, pack, unpack_param

FIELDS: Mapping[str, FieldCompiler] = {
    "number": number_field(VERSIONS.c.number),
    "state": enum_field(VERSIONS.c.state, list(VersionState)),
    "label": text_field(VERSIONS.c.label),
    "run": text_field(VERSIONS.c.run),
    "build": text_field(VERSIONS.c.build),
    "creator": text_field(VERSIONS.c.creator),
    "create_time": timestamp_field(VERSIONS.c.create_time),
    "labels": map_field(
        VERSION_LABELS.c.version_pk == VERSIONS.c.pk,
        key=VERSION_LABELS.c.key,
        values=text_field(VERSION_LABELS.c.value),
    ),
    "params": map_field(
        VERSION_PARAMS.c.version_pk == VERSIONS.c.pk,
        key=VERSION_PARAMS.c.key,
        values=param_field(VERSION_PARAMS),
    ),
    "metrics": map_field(
        VERSION_METRICS.c.version_pk == VERSIONS.c.pk,
        key=VERSION_METRICS.c.key,
        values=number_field(VERSION_METRICS.c.last),
    ),
}
ORDERS = ("number", "create_time", "metrics.*")


def insert_version(
    connection: Connection,
    model_pk: int,
    number: int,
    draft: VersionDraft,
    *,
    creator: str,
    now: datetime,
) -> int | None:
    """Insert a PENDING version and return its row; None when its label is taken."""
    row = insert_new(
        connection,
        VERSIONS,
        ["model_pk", "taken_label"],
        model_pk=model_pk,
        number=number,
        state=VersionState.PENDING.value,
        artifact=draft.artifact,
        run=draft.run,
        build=draft.build,
        label=draft.label,
        label_rank=label_rank(draft.label),
        taken_label=draft.label or None,
        description=draft.description,
        card="",
        license="",
        revision=1,
        environment_digest=draft.environment_digest,
        tests_passed=draft.tests_passed,
        wanted_aliases=pack(draft.aliases),
        creator=creator,
        create_time=now,
    )
    if row is None:
        return None
    labels = [{"version_pk": row.pk, "key": k, "value": v} for k, v in draft.labels.items()]
    if labels:
        connection.execute(VERSION_LABELS.insert(), labels)
    return int(row.pk)


def set_ready(connection: Connection, version_pk: int, now: datetime) -> tuple[str, ...] | None:
    """Make a PENDING version READY; return the aliases it is to get, or None if it was not."""
    statement = (
        VERSIONS.update()
        .where(_pending(version_pk))
        .values(state=VersionState.READY.value, ready_time=now)
        .returning(VERSIONS.c.wanted_aliases)
    )
    wanted = connection.execute(statement).scalar()
    return None if wanted is None else msgspec.msgpack.decode(wanted, type=tuple[str, ...])


def set_failed(connection: Connection, version_pk: int, failure: Failure) -> bool:
    """Make a PENDING version FAILED and give its label back; False if it was not PENDING."""
    statement = (
        VERSIONS.update()
        .where(_pending(version_pk))
        .values(
            state=VersionState.FAILED.value,
            failure_reason=failure.reason,
            failure_message=failure.message,
            taken_label=None,
        )
    )
    return connection.execute(statement).rowcount > 0


def find_version_row(connection: Connection, name: VersionName) -> tuple[int, VersionState] | None:
    """Return a version's row and state, or None."""
    query = (
        sa.select(VERSIONS.c.pk, VERSIONS.c.state)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(_of_model(name.parent), VERSIONS.c.number == name.version)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.pk, VersionState(row.state))


def find_version(connection: Connection, name: VersionName) -> Version | None:
    """Return a version, or None."""
    query = _select().where(_of_model(name.parent), VERSIONS.c.number == name.version)
    return _first(connection, query)


def newest_ready(connection: Connection, name: ModelName) -> Version | None:
    """Return a model's newest READY version, or None."""
    is_ready = VERSIONS.c.state == VersionState.READY.value
    query = _select().where(_of_model(name), is_ready).order_by(VERSIONS.c.number.desc()).limit(1)
    return _first(connection, query)


def find_aliased(connection: Connection, name: ModelName, alias: str) -> Version | None:
    """Return the version an alias points to, or None."""
    query = (
        _select()
        .join(ALIASES, ALIASES.c.version_pk == VERSIONS.c.pk)
        .where(_of_model(name), ALIASES.c.alias == alias)
    )
    return _first(connection, query)


def list_versions(connection: Connection, parent: ModelName, listing: Listing) -> Page[Version]:
    """Return a page of a model's versions, or of all models' of the project (`-`)."""
    query = _select().where(_of_model(parent))
    expression = parse_filter(listing.filter)
    if expression is not None:
        query = query.where(compile_filter(expression, FIELDS))
    sorts = [_sort(t.path, t.descending) for t in parse_order(listing.order, ORDERS)]
    sorts.append(Sort(VERSIONS.c.pk, int, descending=True))
    scope = f"versions\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_versions(connection, rows)), token)


def list_pending(connection: Connection, *, before: datetime, limit: int) -> list[PendingVersion]:
    """Return versions that have been PENDING since before a moment, oldest first."""
    query = (
        _select()
        .where(VERSIONS.c.state == VersionState.PENDING.value, VERSIONS.c.create_time < before)
        .order_by(VERSIONS.c.create_time)
        .limit(limit)
    )
    return [
        PendingVersion(_name(row), _artifact(row), row.creator) for row in connection.execute(query)
    ]


def _sort(path: tuple[str, ...], descending: bool) -> Sort:
    if path == ("number",):
        return Sort(VERSIONS.c.number, int, descending)
    if path == ("create_time",):
        return by_time(VERSIONS.c.create_time, descending=descending)
    if len(path) > 2:
        message = "a version's metric has one value; quote keys that hold dots"
        raise ServiceError(Reason.INVALID_ORDER, message, order_by=".".join(path)[:200])
    value = (
        sa.select(VERSION_METRICS.c.last)
        .where(VERSION_METRICS.c.version_pk == VERSIONS.c.pk, VERSION_METRICS.c.key == path[1])
        .scalar_subquery()
        .correlate(VERSIONS)
    )
    return by_number(value, descending=descending)


def _select() -> sa.Select[Any]:
    return sa.select(VERSIONS, MODELS.c.project, MODELS.c.model).join(
        MODELS, MODELS.c.pk == VERSIONS.c.model_pk
    )


def _of_model(name: ModelName) -> sa.ColumnElement[bool]:
    in_project = MODELS.c.project == name.project
    if name.model == WILDCARD:
        return in_project
    return sa.and_(in_project, MODELS.c.model == name.model)


def _pending(version_pk: int) -> sa.ColumnElement[bool]:
    return sa.and_(VERSIONS.c.pk == version_pk, VERSIONS.c.state == VersionState.PENDING.value)


def _first(connection: Connection, query: sa.Select[Any]) -> Version | None:
    rows = list(connection.execute(query))
    return _versions(connection, rows)[0] if rows else None


def _versions(connection: Connection, rows: Sequence[Row[Any]]) -> list[Version]:
    pks = [row.pk for row in rows]
    labels = maps_of(connection, VERSION_LABELS, "version_pk", pks)
    params = maps_of(connection, VERSION_PARAMS, "version_pk", pks)
    metrics = maps_of(connection, VERSION_METRICS, "version_pk", pks)
    aliases = _aliases(connection, pks)
    return [
        Version(
            name=_name(row),
            state=VersionState(row.state),
            failure=(
                Failure(row.failure_reason, row.failure_message) if row.failure_reason else None
            ),
            artifact=_artifact(row),
            run=row.run,
            build=row.build,
            label=row.label,
            description=row.description,
            labels={entry.key: entry.value for entry in labels[row.pk]},
            params={entry.key: unpack_param(entry.value) for entry in params[row.pk]},
            metrics={entry.key: entry.last for entry in metrics[row.pk]},
            environment_digest=row.environment_digest,
            tests_passed=row.tests_passed,
            creator=row.creator,
            create_time=row.create_time,
            ready_time=row.ready_time,
            aliases=tuple(aliases.get(row.pk, ())),
        )
        for row in rows
    ]


def _aliases(connection: Connection, pks: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    if pks:
        query = sa.select(ALIASES.c.version_pk, ALIASES.c.alias).where(
            ALIASES.c.version_pk.in_(pks)
        )
        for row in connection.execute(query.order_by(ALIASES.c.alias)):
            found.setdefault(row.version_pk, []).append(row.alias)
    return found


def _name(row: Row[Any]) -> VersionName:
    return VersionName(row.project, row.model, row.number)


def _artifact(row: Row[Any]) -> str:
    return str(ArtifactName(row.project, row.artifact))
