"""Tables and queries of secrets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.builder.secrets.domain import Secret
from services.builder.store import METADATA, insert
from services.common.names import SecretName
from services.common.sql.database import Timestamp

SECRETS = sa.Table(
    "secrets",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("secret", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    # Encrypted, see `common/sealing.py`.
    sa.Column("sealed_value", sa.LargeBinary, nullable=False),
    sa.Column("updater", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
SEALING_KEYS = sa.Table(
    "sealing_keys",
    METADATA,
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
)
_SHOWN = [column for column in SECRETS.c if column.name != "sealed_value"]


def add_secret(connection: Connection, secret: Secret, sealed: bytes) -> bool:
    """Insert a secret; False when it exists."""
    values = {
        "project": secret.name.project,
        "secret": secret.name.secret,
        "sealed_value": sealed,
        **_changing(secret),
        "create_time": secret.create_time,
    }
    statement = insert(connection, SECRETS).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(SECRETS.c.secret)).first() is not None


def save_secret(connection: Connection, secret: Secret, sealed: bytes | None) -> None:
    """Store a secret's changes; without `sealed`, its value stays."""
    values = _changing(secret) | ({} if sealed is None else {"sealed_value": sealed})
    connection.execute(SECRETS.update().where(_is(secret.name)).values(values))


def delete_secret(connection: Connection, name: SecretName) -> None:
    """Delete a secret with its value."""
    connection.execute(SECRETS.delete().where(_is(name)))


def find_secret(connection: Connection, name: SecretName, *, lock: bool = False) -> Secret | None:
    """Return a secret; `lock` keeps it from changing until the transaction ends."""
    query = sa.select(*_SHOWN).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _secret(row)


def list_secrets(connection: Connection, project: str, *, after: str, limit: int) -> list[Secret]:
    """Return a project's secrets by name, from after an id on."""
    query = (
        sa.select(*_SHOWN)
        .where(SECRETS.c.project == project, SECRETS.c.secret > after)
        .order_by(SECRETS.c.secret)
        .limit(limit)
    )
    return [_secret(row) for row in connection.execute(query)]


def count_secrets(connection: Connection, project: str) -> int:
    """Return how many secrets a project has."""
    query = sa.select(sa.func.count()).where(SECRETS.c.project == project)
    return int(connection.execute(query).scalar_one())


def sealed_values(connection: Connection, names: Collection[SecretName]) -> dict[SecretName, bytes]:
    """Return the sealed values of those that there are."""
    keys = sa.tuple_(SECRETS.c.project, SECRETS.c.secret)
    wanted = [(name.project, name.secret) for name in names]
    query = sa.select(SECRETS.c.project, SECRETS.c.secret, SECRETS.c.sealed_value)
    rows = connection.execute(query.where(keys.in_(wanted)))
    return {SecretName(row.project, row.secret): bytes(row.sealed_value) for row in rows}


def keep_sealing_key(connection: Connection, purpose: str, key: bytes, now: datetime) -> bytes:
    """Insert a key unless there is one of this purpose; return the one that is kept."""
    values = {"purpose": purpose, "key": key, "create_time": now}
    connection.execute(insert(connection, SEALING_KEYS).values(values).on_conflict_do_nothing())
    query = sa.select(SEALING_KEYS.c.key).where(SEALING_KEYS.c.purpose == purpose)
    return bytes(connection.execute(query).scalar_one())


def _is(name: SecretName) -> sa.ColumnElement[bool]:
    return sa.and_(SECRETS.c.project == name.project, SECRETS.c.secret == name.secret)


def _changing(secret: Secret) -> dict[str, Any]:
    return {
        "description": secret.description,
        "updater": secret.updater,
        "update_time": secret.update_time,
        "revision": secret.revision,
    }


def _secret(row: Any) -> Secret:
    return Secret(
        name=SecretName(row.project, row.secret),
        description=row.description,
        updater=row.updater,
        create_time=row.create_time,
        update_time=row.update_time,
        revision=row.revision,
    )
