"""Projects, tokens, models, versions, aliases, runs, datasets, uses.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

from services.metadata.datasets import store as datasets
from services.metadata.lineage import store as lineage
from services.metadata.members import store as members
from services.metadata.models import evaluation_store as evaluations
from services.metadata.models import releases_store as releases
from services.metadata.models import store as models
from services.metadata.projects import store as projects
from services.metadata.retention import store as retention
from services.metadata.runs import points_store as points
from services.metadata.runs import store as runs
from services.metadata.schema import METADATA
from services.metadata.signatures import store as signatures
from services.metadata.webhooks import store as webhooks

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STORES = (
    projects,
    members,
    models,
    evaluations,
    releases,
    runs,
    points,
    datasets,
    lineage,
    webhooks,
    retention,
    signatures,
)


def upgrade() -> None:
    """Create the tables of the first release, which hang on one schema once all are imported."""
    METADATA.create_all(op.get_bind())
