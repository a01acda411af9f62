"""The table and queries of uses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import DeploymentName, ModelName, VersionName
from services.common.sql.database import Timestamp
from services.metadata.lineage.domain import VersionUse
from services.metadata.listing import Listing, Page
from services.metadata.models.store import MODELS, VERSIONS
from services.metadata.schema import METADATA, Sort, fetch_page, reference, row_id

USES = sa.Table(
    "version_uses",
    METADATA,
    row_id(),
    reference("version_pk", "versions.pk"),
    sa.Column("user_name", sa.Text, nullable=False, index=True),
    sa.Column("start_time", Timestamp, nullable=False),
    sa.Column("end_time", Timestamp),
)
_LASTS = USES.c.end_time.is_(None)
# A deployment uses a version once at a time.
sa.Index(
    "version_uses_current",
    USES.c.version_pk,
    USES.c.user_name,
    unique=True,
    sqlite_where=_LASTS,
    postgresql_where=_LASTS,
)


def newest_use(connection: Connection, version_pk: int, user: str) -> VersionUse | None:
    """Return a deployment's newest use of a version, or None."""
    query = (
        _select()
        .where(USES.c.version_pk == version_pk, USES.c.user_name == user)
        .order_by(USES.c.pk.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _use(row)


def start_use(connection: Connection, version_pk: int, user: str, now: datetime) -> None:
    """Record that a use began; the version's model must be locked."""
    values = {"version_pk": version_pk, "user_name": user, "start_time": now}
    connection.execute(USES.insert().values(**values))


def end_use(connection: Connection, version_pk: int, user: str, now: datetime) -> None:
    """Record that a lasting use ended."""
    lasting = sa.and_(USES.c.version_pk == version_pk, USES.c.user_name == user, _LASTS)
    connection.execute(USES.update().where(lasting).values(end_time=now))


def current_users(connection: Connection, version_pk: int) -> list[str]:
    """Return the names of the deployments that use a version now."""
    query = sa.select(USES.c.user_name).where(USES.c.version_pk == version_pk, _LASTS)
    return list(connection.execute(query.order_by(USES.c.user_name)).scalars())


def list_uses(
    connection: Connection,
    parent: ModelName | VersionName,
    listing: Listing,
    *,
    current_only: bool,
) -> Page[VersionUse]:
    """Return a page of the uses of a version, or of a model's versions, newest first."""
    query = _select().where(MODELS.c.project == parent.project, MODELS.c.model == parent.model)
    if isinstance(parent, VersionName):
        query = query.where(VERSIONS.c.number == parent.version)
    if current_only:
        query = query.where(_LASTS)
    sorts = [Sort(USES.c.pk, int, descending=True)]
    scope = f"uses\n{parent}\n{current_only}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_use(row) for row in rows), token)


def _select() -> sa.Select[Any]:
    return (
        sa.select(USES, MODELS.c.project, MODELS.c.model, VERSIONS.c.number)
        .join(VERSIONS, VERSIONS.c.pk == USES.c.version_pk)
        .join(MODELS, MODELS.c.pk == VERSIONS.c.model_pk)
    )


def _use(row: Row[Any]) -> VersionUse:
    return VersionUse(
        version=VersionName(row.project, row.model, row.number),
        user=DeploymentName.parse(row.user_name, "user"),
        start_time=row.start_time,
        end_time=row.end_time,
    )
