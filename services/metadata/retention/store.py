"""The table and queries of retention."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import ModelName
from services.common.sql.database import Timestamp
from services.metadata.lineage.store import USES
from services.metadata.models.domain import VersionState
from services.metadata.models.store import ALIASES, MODELS, VERSIONS
from services.metadata.retention.domain import Candidate, Retention, Rules
from services.metadata.schema import METADATA, reference, upsert

RETENTIONS = sa.Table(
    "retentions",
    METADATA,
    reference("model_pk", "models.pk", primary_key=True),
    sa.Column("keep_last", sa.BigInteger, nullable=False),
    sa.Column("keep_us", sa.BigInteger),
    sa.Column("purge_us", sa.BigInteger),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("setter", sa.Text, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
)
_MICROSECOND = timedelta(microseconds=1)


def put_retention(connection: Connection, model_pk: int, retention: Retention) -> None:
    """Write a model's retention, in place of what it had."""
    rules = retention.rules
    row = {
        "model_pk": model_pk,
        "keep_last": rules.keep_last,
        "keep_us": _microseconds(rules.keep_for),
        "purge_us": _microseconds(rules.purge_after),
        "revision": retention.revision,
        "setter": retention.setter,
        "update_time": retention.update_time,
    }
    upsert(connection, RETENTIONS, ["model_pk"], [row])


def find_retention(connection: Connection, name: ModelName) -> Retention | None:
    """Return a model's retention, or None."""
    query = _select().where(MODELS.c.project == name.project, MODELS.c.model == name.model)
    row = connection.execute(query).first()
    return None if row is None else _retention(row)


def list_retentions(connection: Connection) -> list[Retention]:
    """Return the retention of every model that is not deleted."""
    query = _select().where(MODELS.c.delete_time.is_(None))
    return [_retention(row) for row in connection.execute(query)]


def delete_retention(connection: Connection, model_pk: int) -> None:
    """Remove a model's retention; there may be none."""
    connection.execute(RETENTIONS.delete().where(RETENTIONS.c.model_pk == model_pk))


def list_candidates(connection: Connection, name: ModelName, *, limit: int) -> list[Candidate]:
    """Return a model's versions, newest first."""
    query = (
        sa.select(
            VERSIONS.c.pk,
            VERSIONS.c.number,
            VERSIONS.c.state,
            VERSIONS.c.archive_time,
            VERSIONS.c.create_time,
            VERSIONS.c.delete_time,
        )
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(MODELS.c.project == name.project, MODELS.c.model == name.model)
        .order_by(VERSIONS.c.number.desc())
        .limit(limit)
    )
    rows = list(connection.execute(query))
    needed = _needed(connection, name)
    return [
        Candidate(
            name=name.version(row.number),
            state=VersionState(row.state),
            is_archived=row.archive_time is not None,
            create_time=row.create_time,
            delete_time=row.delete_time,
            needed_by=tuple(needed[row.pk]),
        )
        for row in rows
    ]


def _needed(connection: Connection, name: ModelName) -> defaultdict[int, list[str]]:
    """Return, by version, the aliases that point to it and the deployments that use it."""
    of_model = sa.and_(MODELS.c.project == name.project, MODELS.c.model == name.model)
    aliases = (
        sa.select(ALIASES.c.version_pk, ALIASES.c.alias)
        .join(VERSIONS, VERSIONS.c.pk == ALIASES.c.version_pk)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(of_model)
        .order_by(ALIASES.c.alias)
    )
    users = (
        sa.select(USES.c.version_pk, USES.c.user_name)
        .join(VERSIONS, VERSIONS.c.pk == USES.c.version_pk)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
        .where(of_model, USES.c.end_time.is_(None))
        .order_by(USES.c.user_name)
    )
    found: defaultdict[int, list[str]] = defaultdict(list)
    for row in connection.execute(aliases):
        found[row.version_pk].append(str(name.alias(row.alias)))
    for row in connection.execute(users):
        found[row.version_pk].append(row.user_name)
    return found


def _select() -> sa.Select[Any]:
    return sa.select(RETENTIONS, MODELS.c.project, MODELS.c.model).join(
        MODELS, MODELS.c.pk == RETENTIONS.c.model_pk
    )


def _retention(row: Row[Any]) -> Retention:
    rules = Rules(row.keep_last, _duration(row.keep_us), _duration(row.purge_us))
    model = ModelName(row.project, row.model)
    return Retention(model, rules, row.revision, row.setter, row.update_time)


def _microseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // _MICROSECOND


def _duration(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)
