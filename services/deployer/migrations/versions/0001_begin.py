"""The first tables.

Frozen: a later change of the tables is a revision of its own.
"""

from alembic import op

from services.deployer.store.tables import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    METADATA.create_all(op.get_bind())


def downgrade() -> None:
    """Drop every table."""
    METADATA.drop_all(op.get_bind())
