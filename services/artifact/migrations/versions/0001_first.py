"""Packs, chunks, files, artifacts, holds.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "packs",
        sa.Column("pack", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False, index=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("pack", sa.Text, sa.ForeignKey("packs.pack"), nullable=False, index=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("damaged", sa.Boolean, nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "files",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chunk_digests", sa.LargeBinary, nullable=False),
        sa.Column("chunk_lengths", sa.LargeBinary, nullable=False),
        sa.Column("damaged", sa.Boolean, nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("file_count", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "holds",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, primary_key=True),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("holds", "artifacts", "files", "chunks", "packs"):
        op.drop_table(table)
