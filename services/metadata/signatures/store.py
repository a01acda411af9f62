"""The table and queries of signatures."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.database import Timestamp
from services.metadata.schema import METADATA, insert_new, reference, row_id
from services.metadata.signatures.domain import Signature

SIGNATURES = sa.Table(
    "version_signatures",
    METADATA,
    row_id(),
    reference("version_pk", "versions.pk"),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("key_hint", sa.Text, nullable=False),
    sa.Column("bundle", sa.LargeBinary, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.UniqueConstraint("version_pk", "sha256"),
)


def add_signature(
    connection: Connection, version_pk: int, signature: Signature, bundle: bytes
) -> None:
    """Insert a signature unless it is there."""
    insert_new(
        connection,
        SIGNATURES,
        ["version_pk", "sha256"],
        version_pk=version_pk,
        sha256=signature.sha256,
        key_hint=signature.key_hint,
        bundle=bundle,
        creator=signature.creator,
        create_time=signature.create_time,
    )


def list_signatures(connection: Connection, version_pk: int) -> list[Signature]:
    """Return a version's signatures, oldest first."""
    query = sa.select(
        SIGNATURES.c.sha256,
        SIGNATURES.c.key_hint,
        SIGNATURES.c.creator,
        SIGNATURES.c.create_time,
    ).where(SIGNATURES.c.version_pk == version_pk)
    return [Signature(*row) for row in connection.execute(query.order_by(SIGNATURES.c.pk))]


def find_bundle(connection: Connection, version_pk: int, sha256: str) -> bytes | None:
    """Return a signature's bundle, or None."""
    query = sa.select(SIGNATURES.c.bundle).where(
        SIGNATURES.c.version_pk == version_pk, SIGNATURES.c.sha256 == sha256
    )
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found)
