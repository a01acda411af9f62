"""The deployer's tables, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from services.common.audit import entries as audit
from services.common.sql import idempotency, outbox
from services.common.sql.database import Timestamp

METADATA = sa.MetaData()
outbox.tables(METADATA)
idempotency.table(METADATA)
audit.tables(METADATA)

ENVIRONMENTS = sa.Table(
    "environments",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("gates", sa.LargeBinary, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("edition", sa.BigInteger, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
)
DEPLOYMENTS = sa.Table(
    "deployments",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("environment", sa.Text, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failure", sa.LargeBinary),
    sa.Column("desired_revision", sa.BigInteger, nullable=False),
    sa.Column("live_revision", sa.BigInteger, nullable=False),
    sa.Column("last_revision", sa.BigInteger, nullable=False),
    sa.Column("shadow_revision", sa.BigInteger, nullable=False),
    sa.Column("preview_revision", sa.BigInteger, nullable=False),
    sa.Column("warm_revision", sa.BigInteger, nullable=False),
    sa.Column("progress", sa.LargeBinary, nullable=False),
    sa.Column("assignment", sa.LargeBinary, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("report", sa.LargeBinary, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False, index=True),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    # The lease of the one replica that drives the deployment; the epoch fences off a late one.
    sa.Column("lease_holder", sa.Text, nullable=False),
    sa.Column("lease_epoch", sa.BigInteger, nullable=False),
    sa.Column("lease_start_time", Timestamp),
    sa.Column("lease_expire_time", Timestamp),
)
REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployments.name"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("artifact", sa.Text, nullable=False),
    sa.Column("environment_digest", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("verdicts", sa.LargeBinary, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("failure", sa.LargeBinary),
    sa.Column("restored_revision", sa.BigInteger, nullable=False),
    sa.Column("plan", sa.LargeBinary, nullable=False),
    sa.Column("serving", sa.LargeBinary, nullable=False),
    sa.Column("mirror_percent", sa.BigInteger, nullable=False),
    sa.Column("header_match", sa.LargeBinary),
    # The newest dataset version of its sampled requests; written by itself, never with the rest.
    sa.Column("sample", sa.Text, nullable=False),
    # Whose running variant it takes up again; 0: it has its own.
    sa.Column("variant", sa.BigInteger, nullable=False),
    sa.Column("running", sa.Boolean, nullable=False),
    sa.Column("trace_parent", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("live_time", Timestamp),
)
USES = sa.Table(
    "version_uses",
    METADATA,
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployments.name"), primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    # False: metadata may or may not have been told; it is told again.
    sa.Column("recorded", sa.Boolean, nullable=False),
)
CONTROLLERS = sa.Table(
    "controllers",
    METADATA,
    # What is watched: one environment, or a pattern that stands for many.
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expire_time", Timestamp, nullable=False),
)
APPROVALS = sa.Table(
    "approvals",
    METADATA,
    sa.Column("environment", sa.Text, sa.ForeignKey("environments.name"), primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
)
DELEGATIONS = sa.Table(
    "delegations",
    METADATA,
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployments.name"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("delegation", sa.Text, nullable=False),
    sa.Column("renew_time", Timestamp, nullable=False),
)


def insert(connection: Connection, table: sa.Table) -> Any:
    """Make an INSERT that knows ON CONFLICT, which SQLAlchemy has per dialect only."""
    own = sqlite if connection.dialect.name == "sqlite" else postgresql
    return own.insert(table)
