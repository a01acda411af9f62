"""The table of packs that clients put into object storage themselves, and claims about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.domain import StoredFile
from services.artifact.schema import CHUNKS, FILES, METADATA, PACKS
from services.artifact.store import among, slices
from services.common.sql.database import Timestamp

ANNOUNCED = sa.Table(
    "announced_packs",
    METADATA,
    sa.Column("pack", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Announced:
    """A pack that somebody may put."""

    pack: str
    project: str
    sender: str
    size: int
    sha256: bytes


def add_announced(connection: Connection, announced: Announced, now: datetime) -> None:
    """Record who may put which pack."""
    row = {
        "pack": announced.pack,
        "project": announced.project,
        "sender": announced.sender,
        "size_bytes": announced.size,
        "sha256": announced.sha256,
        "create_time": now,
    }
    connection.execute(ANNOUNCED.insert().values(**row))


def find_announced(connection: Connection, pack: str) -> Announced | None:
    """Return who may put a pack, or None."""
    row = connection.execute(sa.select(ANNOUNCED).where(ANNOUNCED.c.pack == pack)).first()
    if row is None:
        return None
    return Announced(row.pack, row.project, row.sender, row.size_bytes, bytes(row.sha256))


def forget_announced(connection: Connection, *, before: datetime) -> None:
    """Forget announcements from before a moment: what was not put by then never will be."""
    connection.execute(ANNOUNCED.delete().where(ANNOUNCED.c.create_time < before))


def is_added(connection: Connection, pack: str) -> bool:
    """Say whether the chunks of a pack are recorded."""
    query = sa.select(PACKS.c.sealed).where(PACKS.c.pack == pack)
    return bool(connection.execute(query).scalar())


def set_claimed(connection: Connection, pack: str, sender: str) -> None:
    """Record that what is in a pack is its sender's word."""
    connection.execute(PACKS.update().where(PACKS.c.pack == pack).values(claimant=sender))


def next_claim(connection: Connection) -> tuple[str, StoredFile] | None:
    """Return a file of which nobody but its sender knows that its chunks make it, with its project.

    Its chunks may be anyone's word still; damaged ones are left alone.
    """
    is_claimed = FILES.c.claimant != sa.literal_column("''")
    query = sa.select(
        FILES.c.project,
        FILES.c.digest,
        FILES.c.size_bytes,
        FILES.c.chunk_digests,
        FILES.c.chunk_lengths,
    ).where(is_claimed, FILES.c.damaged.is_(sa.false()))
    row = connection.execute(query.limit(1)).first()
    if row is None:
        return None
    packed = bytes(row.digest), row.size_bytes, bytes(row.chunk_digests), bytes(row.chunk_lengths)
    return row.project, StoredFile.unpack(*packed)


def settle_claim(connection: Connection, project: str, digest: bytes, *, is_true: bool) -> None:
    """Record whether a file is what its sender said."""
    changed = FILES.update().where(among(FILES, project, [digest]))
    connection.execute(changed.values(claimant="") if is_true else changed.values(damaged=True))


def claimants(connection: Connection, project: str, chunks: Sequence[bytes]) -> dict[bytes, str]:
    """Return whose word it is that chunks are what they are called, where nobody looked yet."""
    found: dict[bytes, str] = {}
    for some in slices(chunks):
        query = (
            sa.select(CHUNKS.c.digest, PACKS.c.claimant)
            .join(PACKS, PACKS.c.pack == CHUNKS.c.pack)
            .where(among(CHUNKS, project, some), PACKS.c.claimant != "")
        )
        found |= {bytes(digest): claimant for digest, claimant in connection.execute(query)}
    return found
