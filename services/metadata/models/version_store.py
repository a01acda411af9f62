"""Queries of versions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.errors import not_found
from services.common.names import WILDCARD, ArtifactName, ModelName, VersionName
from services.common.sql.database import Timestamp
from services.common.sql.driver_sql import driver_sql
from services.common.sql.outbox import microseconds
from services.metadata.models import version_maps_store
from services.metadata.models.domain import (
    PendingVersion,
    Standing,
    Version,
    VersionDraft,
    VersionState,
)
from services.metadata.models.labels import label_rank
from services.metadata.models.store import (
    ALIASES,
    MODELS,
    VERSION_LABELS,
    VERSIONS,
    lock_model,
)
from services.metadata.schema import insert_rows
from services.metadata.values import Failure, pack

_INSERT = (
    "INSERT INTO versions (model_pk, number, artifact, run, build, label, label_rank, taken_label,"
    " description, card, license, image, environment_digest, tests_passed, wanted_aliases, creator,"
    " create_time, state, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
    " 'PENDING', 1) ON CONFLICT (model_pk, taken_label) DO NOTHING RETURNING pk"
)
_SET_FRESH_READY = (
    "UPDATE versions SET state = 'READY', ready_time = ?, revision = 2"
    # Every other change counts the revision up.
    " WHERE pk = ? AND state = 'PENDING' AND revision = 1"
)


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
    values = (
        model_pk,
        number,
        draft.artifact,
        draft.run,
        draft.build,
        draft.label,
        label_rank(draft.label),
        draft.label or None,
        draft.description,
        draft.card,
        draft.license,
        draft.image,
        draft.environment_digest,
        draft.tests_passed,
        pack(draft.aliases),
        creator,
        microseconds(now),
    )
    row = driver_sql(connection, _INSERT, values).fetchone()
    if row is None:
        return None
    labels = [(*row, key, value) for key, value in draft.labels.items()]
    insert_rows(connection, VERSION_LABELS.name, ("version_pk", "key", "value"), labels)
    return int(row[0])


def set_ready(connection: Connection, version_pk: int, now: datetime) -> tuple[str, ...] | None:
    """Make a PENDING version READY; return the aliases it is to get, or None if it was not."""
    values = {"version_pk": version_pk, "now": now}
    wanted = connection.execute(_set_ready(), values).scalar()
    return None if wanted is None else msgspec.msgpack.decode(wanted, type=tuple[str, ...])


def set_fresh_ready(connection: Connection, version_pk: int, now: datetime) -> bool:
    """Make a PENDING version READY that is as it was made; False if anything changed it."""
    return driver_sql(connection, _SET_FRESH_READY, (microseconds(now), version_pk)).rowcount > 0


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
            revision=VERSIONS.c.revision + 1,
        )
    )
    return connection.execute(statement).rowcount > 0


def find_standing(connection: Connection, name: VersionName) -> Standing | None:
    """Return a version's row and what decides what may be done with it, or None."""
    row = connection.execute(_select_standing(), _version_values(name)).first()
    if row is None:
        return None
    state = VersionState(row.state)
    return Standing(row.pk, state, row.revision, bool(row.is_archived), bool(row.is_deleted))


def lock_version(connection: Connection, name: VersionName) -> Standing:
    """Return where a version stands, its model locked until the transaction's end.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND.
    """
    lock_model(connection, name.parent)
    standing = find_standing(connection, name)
    if standing is None:
        raise not_found(name)
    return standing


def find_version(connection: Connection, name: VersionName) -> Version | None:
    """Return a version, also a deleted one; or None."""
    return _first(connection, connection.execute(_select_version(), _version_values(name)))


def find_versions(connection: Connection, names: Sequence[VersionName]) -> list[Version]:
    """Return those of some versions of one project that exist, without their cards."""
    pairs = sa.tuple_(MODELS.c.model, VERSIONS.c.number)
    query = select_versions().where(
        MODELS.c.project == names[0].project,
        pairs.in_([(name.model, name.version) for name in names]),
    )
    return load_versions(connection, list(connection.execute(query)))


def newest_ready(connection: Connection, name: ModelName) -> Version | None:
    """Return a model's newest READY version that is neither archived nor deleted, or None."""
    may_be_chosen = sa.and_(
        VERSIONS.c.state == VersionState.READY.value,
        VERSIONS.c.archive_time.is_(None),
        VERSIONS.c.delete_time.is_(None),
        MODELS.c.delete_time.is_(None),
    )
    query = select_versions(card=True).where(of_model(name), may_be_chosen)
    newest = query.order_by(VERSIONS.c.number.desc()).limit(1)
    return _first(connection, connection.execute(newest))


def find_labelled(connection: Connection, name: ModelName, label: str) -> Version | None:
    """Return the version that has a label, or None."""
    has_label = VERSIONS.c.taken_label == label
    query = select_versions(card=True).where(of_model(name), has_label)
    return _first(connection, connection.execute(query))


def find_aliased(connection: Connection, name: ModelName, alias: str) -> Version | None:
    """Return the version an alias points to, or None."""
    values = {"project": name.project, "model": name.model, "alias": alias}
    return _first(connection, connection.execute(_select_aliased(), values))


def list_pending(connection: Connection, *, before: datetime, limit: int) -> list[PendingVersion]:
    """Return versions that have been PENDING since before a moment, oldest first."""
    query = (
        select_versions()
        .where(VERSIONS.c.state == VersionState.PENDING.value, VERSIONS.c.create_time < before)
        .order_by(VERSIONS.c.create_time)
        .limit(limit)
    )
    return [
        PendingVersion(_name(row), _artifact(row), row.creator) for row in connection.execute(query)
    ]


def select_versions(*, card: bool = False) -> sa.Select[Any]:
    """Select versions for `load_versions`; lists leave the cards out."""
    columns: list[sa.ColumnElement[Any]] = [
        column
        for column in VERSIONS.c
        if column is not VERSIONS.c.wanted_aliases and (card or column is not VERSIONS.c.card)
    ]
    if not card:
        columns.append(sa.literal("").label("card"))
    return sa.select(*columns, MODELS.c.project, MODELS.c.model).join(
        MODELS, MODELS.c.pk == VERSIONS.c.model_pk
    )


def of_model(name: ModelName) -> sa.ColumnElement[bool]:
    """Say which versions are of a model, or of any model of its project (`-`)."""
    in_project = MODELS.c.project == name.project
    if name.model == WILDCARD:
        return in_project
    return sa.and_(in_project, MODELS.c.model == name.model)


# The statements of every registration and lookup, built once: building one costs several
# times what running it does.
@functools.cache
def _select_version() -> sa.Select[Any]:
    return select_versions(card=True).where(_is_version())


@functools.cache
def _select_standing() -> sa.Select[Any]:
    return (
        sa.select(
            VERSIONS.c.pk,
            VERSIONS.c.state,
            VERSIONS.c.revision,
            VERSIONS.c.archive_time.is_not(None).label("is_archived"),
            VERSIONS.c.delete_time.is_not(None).label("is_deleted"),
        )
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(_is_version())
    )


@functools.cache
def _select_aliased() -> sa.Select[Any]:
    return (
        select_versions(card=True)
        .join(ALIASES, ALIASES.c.version_pk == VERSIONS.c.pk)
        .where(
            MODELS.c.project == sa.bindparam("project"),
            MODELS.c.model == sa.bindparam("model"),
            ALIASES.c.alias == sa.bindparam("alias"),
        )
    )


@functools.cache
def _set_ready() -> Any:
    return (
        VERSIONS.update()
        .where(
            VERSIONS.c.pk == sa.bindparam("version_pk"),
            VERSIONS.c.state == VersionState.PENDING.value,
        )
        .values(
            state=VersionState.READY.value,
            ready_time=sa.bindparam("now", type_=Timestamp()),
            revision=VERSIONS.c.revision + 1,
        )
        .returning(VERSIONS.c.wanted_aliases)
    )


def _is_version() -> sa.ColumnElement[bool]:
    return sa.and_(
        MODELS.c.project == sa.bindparam("project"),
        MODELS.c.model == sa.bindparam("model"),
        VERSIONS.c.number == sa.bindparam("number"),
    )


def _version_values(name: VersionName) -> dict[str, Any]:
    return {"project": name.project, "model": name.model, "number": name.version}


def _pending(version_pk: int) -> sa.ColumnElement[bool]:
    return sa.and_(VERSIONS.c.pk == version_pk, VERSIONS.c.state == VersionState.PENDING.value)


def _first(connection: Connection, found: Iterable[Row[Any]]) -> Version | None:
    rows = list(found)
    return load_versions(connection, rows)[0] if rows else None


def load_versions(connection: Connection, rows: Sequence[Row[Any]]) -> list[Version]:
    """Return the versions of rows that `select_versions` selected."""
    maps = version_maps_store.read_maps(connection, [row.pk for row in rows])
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
            labels=maps[row.pk].labels,
            card=row.card,
            license=row.license,
            image=row.image,
            params=maps[row.pk].params,
            metrics=maps[row.pk].metrics,
            environment_digest=row.environment_digest,
            tests_passed=row.tests_passed,
            creator=row.creator,
            create_time=row.create_time,
            ready_time=row.ready_time,
            archive_time=row.archive_time,
            delete_time=row.delete_time,
            revision=row.revision,
            aliases=tuple(maps[row.pk].aliases),
        )
        for row in rows
    ]


def _name(row: Row[Any]) -> VersionName:
    return VersionName(row.project, row.model, row.number)


def _artifact(row: Row[Any]) -> str:
    return str(ArtifactName(row.project, row.artifact))
