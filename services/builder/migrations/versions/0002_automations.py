"""Automations, their executions, reported values.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.common.sql.database import Double

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "automations",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("automation", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("draft", sa.LargeBinary, nullable=False),
        sa.Column("metric_source", sa.Text, nullable=False),
        sa.Column("metric_model", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("heard", sa.Boolean, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("delegation", sa.Text, nullable=False),
        sa.Column("delegation_renew_time", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("edition", sa.BigInteger, nullable=False),
        sa.Column("suspension", sa.Text, nullable=False),
        sa.Column("next_time", sa.BigInteger),
        sa.Column("watching", sa.LargeBinary, nullable=False),
        sa.Column("look_time", sa.BigInteger),
        sa.Column("executions", sa.BigInteger, nullable=False),
        sa.Column("last_execution", sa.Text, nullable=False),
    )
    op.create_index("automations_by_next_time", "automations", ["next_time"])
    columns = ["project", "metric_model", "metric"]
    op.create_index("automations_by_metric", "automations", columns)
    _create_executions()
    _create_reports()


def _create_executions() -> None:
    op.create_table(
        "executions",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("automation", sa.Text, primary_key=True),
        sa.Column("execution", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("occurrence", sa.LargeBinary, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("action", sa.LargeBinary, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("explanation", sa.Text, nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("build", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("verdicts", sa.LargeBinary, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("look_time", sa.BigInteger),
    )
    columns = ["project", "create_time", "automation", "number"]
    op.create_index("executions_by_age", "executions", columns)
    op.create_index("executions_by_number", "executions", ["project", "automation", "number"])
    op.create_index("executions_by_look_time", "executions", ["look_time"])


def _create_reports() -> None:
    op.create_table(
        "reported_metrics",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "reported_values",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", Double, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("reporter", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("automations", "executions", "reported_metrics", "reported_values"):
        op.drop_table(table)
