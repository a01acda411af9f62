"""Queries of approvals."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import EnvironmentName
from services.deployer.domain import Approval
from services.deployer.store.tables import APPROVALS, insert

_KEY = ("environment", "version", "principal")


def save_approval(connection: Connection, name: EnvironmentName, approval: Approval) -> None:
    """Write an approval; one's own earlier one of the version is overwritten."""
    row = {
        "environment": str(name),
        "version": approval.version,
        "principal": approval.principal,
        "reason": approval.reason,
        "create_time": approval.create_time,
    }
    statement = insert(connection, APPROVALS).values(row)
    changed = {key: row[key] for key in ("reason", "create_time")}
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=changed))


def delete_approval(
    connection: Connection, name: EnvironmentName, version: str, principal: str
) -> None:
    """Forget an approval, if there is one."""
    connection.execute(
        APPROVALS.delete().where(
            APPROVALS.c.environment == str(name),
            APPROVALS.c.version == version,
            APPROVALS.c.principal == principal,
        )
    )


def list_approvals(connection: Connection, name: EnvironmentName, version: str) -> list[Approval]:
    """Return the approvals of a version for an environment, oldest first."""
    query = (
        sa.select(APPROVALS)
        .where(APPROVALS.c.environment == str(name), APPROVALS.c.version == version)
        .order_by(APPROVALS.c.create_time, APPROVALS.c.principal)
    )
    rows = connection.execute(query)
    return [Approval(row.version, row.principal, row.reason, row.create_time) for row in rows]
