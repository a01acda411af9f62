"""The artifact service's tables, for SQLite and PostgreSQL alike.

Every row is keyed by its project, also those of chunks and files: sharing bytes
between projects would tell one what another has.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.common.audit import entries as audit
from services.common.sql.database import Timestamp

METADATA = sa.MetaData()
audit.tables(METADATA)

PACKS = sa.Table(
    "packs",
    METADATA,
    sa.Column("pack", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # Its row is there before its bytes are, so that no bytes are ever unknown.
    sa.Column("sealed", sa.Boolean, nullable=False),
    # The sum of its sound chunks' lengths: what is copied when it is compacted.
    sa.Column("live_bytes", sa.BigInteger, nullable=False),
    # Who says that its chunks are what they are called; empty once the service looked itself.
    sa.Column("claimant", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    # Since when nothing has lain in it; its bytes go after a grace for readers.
    sa.Column("condemn_time", Timestamp),
    # When its chunks were last read over.
    sa.Column("verify_time", Timestamp, nullable=False, index=True),
)
CHUNKS = sa.Table(
    "chunks",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("pack", sa.Text, sa.ForeignKey("packs.pack"), nullable=False, index=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    # Found unreadable: it counts as missing, so that a push of the same bytes repairs it.
    sa.Column("damaged", sa.Boolean, nullable=False),
    # How many committed files have it.
    sa.Column("refs", sa.BigInteger, nullable=False),
    sa.Column("lease_expire_time", Timestamp, nullable=False),
    # Since when it has been neither in a file nor leased, as a sweep saw it.
    sa.Column("condemn_time", Timestamp),
)
FILES = sa.Table(
    "files",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("chunk_digests", sa.LargeBinary, nullable=False),
    sa.Column("chunk_lengths", sa.LargeBinary, nullable=False),
    sa.Column("damaged", sa.Boolean, nullable=False),
    # Who says that its chunks make it; empty once the service looked itself.
    sa.Column("claimant", sa.Text, nullable=False),
    # How many artifacts list it, or are listed in it.
    sa.Column("refs", sa.BigInteger, nullable=False),
    sa.Column("lease_expire_time", Timestamp, nullable=False),
)
ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("file_count", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # Of its files and its manifest, 32 bytes each: what it refers to.
    sa.Column("file_digests", sa.LargeBinary, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("lease_expire_time", Timestamp, nullable=False),
)
HOLDS = sa.Table(
    "holds",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("create_time", Timestamp, nullable=False),
)
sa.Index("holds_holder", HOLDS.c.project, HOLDS.c.holder)
# What a project takes, kept by the same transactions as its packs, and what it may take.
SPACES = sa.Table(
    "spaces",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sa.Column("quota_bytes", sa.BigInteger),
)
# Which process does what one is enough for, such as sweeping.
DUTIES = sa.Table(
    "duties",
    METADATA,
    sa.Column("duty", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expire_time", Timestamp, nullable=False),
)


def _partial(name: str, column: sa.Column[Any], rows: sa.ColumnElement[bool]) -> sa.Index:
    """Index the few rows that a condition picks out."""
    return sa.Index(name, column, sqlite_where=rows, postgresql_where=rows)


_partial("chunks_unused", CHUNKS.c.lease_expire_time, CHUNKS.c.refs == 0)
_partial("files_unused", FILES.c.lease_expire_time, FILES.c.refs == 0)
_partial("chunks_damaged", CHUNKS.c.project, CHUNKS.c.damaged.is_(sa.true()))
_partial("packs_claimed", PACKS.c.verify_time, PACKS.c.claimant != sa.literal_column("''"))
_partial("files_claimed", FILES.c.digest, FILES.c.claimant != sa.literal_column("''"))
_partial("files_damaged", FILES.c.project, FILES.c.damaged.is_(sa.true()))
sa.Index("artifacts_lease", ARTIFACTS.c.lease_expire_time)
