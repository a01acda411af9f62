"""Builds, their labels and limits, workers, runs to finish, secrets; the chassis' own tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.common.audit import entries as audit
from services.common.sql import idempotency, outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "builds",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("build", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("build_group", sa.Text, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("failure", sa.LargeBinary, nullable=False),
        sa.Column("phases", sa.LargeBinary, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("acknowledged", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("fetched", sa.LargeBinary, nullable=False),
        sa.Column("winner", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("delegation", sa.Text, nullable=False),
        sa.Column("delegation_renew_time", sa.BigInteger, nullable=False),
        sa.Column("attempt_start_time", sa.BigInteger),
        sa.Column("past_attempts", sa.LargeBinary, nullable=False),
        sa.Column("retry_time", sa.BigInteger),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("cpu_cores", sa.Double, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_bytes", sa.BigInteger, nullable=False),
        sa.Column("events_trimmed", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("builds_by_age", "builds", ["project", "create_time", "build"])
    op.create_index("builds_by_state", "builds", ["state", "create_time"])
    _create_labels()
    _create_queue()
    op.create_table(
        "runs_to_finish",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("build", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    _create_secrets()
    chassis = sa.MetaData()
    outbox.tables(chassis)
    idempotency.table(chassis)
    audit.tables(chassis)
    chassis.create_all(op.get_bind())


def _create_labels() -> None:
    op.create_table(
        "build_labels",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("build", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _create_queue() -> None:
    op.create_table(
        "build_limits",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("max_running", sa.Integer, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("max_builds", sa.Integer, nullable=False),
        sa.Column("cpu_cores", sa.Double, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("disk_bytes", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("sign_time", sa.BigInteger, nullable=False),
    )


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("secret", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("sealed_value", sa.LargeBinary, nullable=False),
        sa.Column("updater", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sealing_keys",
        sa.Column("purpose", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "secrets",
        "sealing_keys",
        "builds",
        "build_labels",
        "build_limits",
        "workers",
        "runs_to_finish",
        "answers",
        "events",
    ):
        op.drop_table(table)
    op.drop_table("event_counters")
