"""The key that tokens are signed with: one for the installation, made at first use."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.schema import METADATA
from services.artifact.store import insert

TOKEN_KEYS = sa.Table(
    "token_keys",
    METADATA,
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False),
)
_PURPOSE = "tokens"


def keep_key(connection: Connection, made: bytes) -> bytes:
    """Insert a key unless there is one; return the one that is kept."""
    row = {"purpose": _PURPOSE, "secret": made}
    connection.execute(insert(connection, TOKEN_KEYS).values(**row).on_conflict_do_nothing())
    query = sa.select(TOKEN_KEYS.c.secret).where(TOKEN_KEYS.c.purpose == _PURPOSE)
    return bytes(connection.execute(query).scalar_one())
