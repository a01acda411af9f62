"""Packs, chunks, files, artifacts, holds, spaces.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

from services.artifact.formats import store as formats
from services.artifact.links import tokens_store
from services.artifact.schema import METADATA
from services.artifact.transfers import store as grant_store

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OTHERS = (grant_store, tokens_store, formats)
"""Stores with tables of their own, which hang on the schema once they are imported."""


def upgrade() -> None:
    """Create the tables of the first release."""
    METADATA.create_all(op.get_bind())


def downgrade() -> None:
    """Drop the tables."""
    METADATA.drop_all(op.get_bind())
