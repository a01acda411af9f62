"""Queries of what crosses to others: the lease, version uses at metadata, delegations."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import DeploymentName
from services.deployer.store.tables import DELEGATIONS, DEPLOYMENTS, REVISIONS, USES, insert


def take_lease(
    connection: Connection, name: DeploymentName, holder: str, *, now: datetime, seconds: float
) -> tuple[int, datetime] | None:
    """Take or extend a deployment's lease; return its epoch and start, None when another has it."""
    row = connection.execute(
        sa.select(
            DEPLOYMENTS.c.lease_holder,
            DEPLOYMENTS.c.lease_epoch,
            DEPLOYMENTS.c.lease_start_time,
            DEPLOYMENTS.c.lease_expire_time,
        )
        .where(DEPLOYMENTS.c.name == str(name))
        .with_for_update()
    ).one()
    valid = row.lease_expire_time is not None and row.lease_expire_time > now
    own = row.lease_holder == holder and valid
    if valid and not own:
        return None
    epoch = row.lease_epoch if own else row.lease_epoch + 1
    start = row.lease_start_time if own else now
    connection.execute(
        DEPLOYMENTS.update()
        .where(DEPLOYMENTS.c.name == str(name))
        .values(
            lease_holder=holder,
            lease_epoch=epoch,
            lease_start_time=start,
            lease_expire_time=now + timedelta(seconds=seconds),
        )
    )
    return epoch, start


def lease_epoch(connection: Connection, name: DeploymentName) -> int:
    """Return the epoch of a deployment's lease, the deployment being locked already."""
    query = sa.select(DEPLOYMENTS.c.lease_epoch).where(DEPLOYMENTS.c.name == str(name))
    return int(connection.execute(query).scalar_one())


def expire_lease(connection: Connection, name: DeploymentName, epoch: int) -> None:
    """Give a deployment's lease back, unless another replica has it by now."""
    connection.execute(
        DEPLOYMENTS.update()
        .where(DEPLOYMENTS.c.name == str(name), DEPLOYMENTS.c.lease_epoch == epoch)
        .values(lease_expire_time=None)
    )


def note_use(connection: Connection, name: DeploymentName, version: str, *, recorded: bool) -> None:
    """Note that metadata is to be told of a use, or was."""
    row = {"deployment": str(name), "version": version, "recorded": recorded}
    statement = insert(connection, USES).values(row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["deployment", "version"], set_={"recorded": recorded}
        )
    )


def forget_use(connection: Connection, name: DeploymentName, version: str) -> None:
    """Note that metadata knows that a use ended."""
    connection.execute(
        USES.delete().where(USES.c.deployment == str(name), USES.c.version == version)
    )


def list_uses(connection: Connection, name: DeploymentName) -> dict[str, bool]:
    """Return the versions whose use metadata may know, and whether it certainly does."""
    query = sa.select(USES.c.version, USES.c.recorded).where(USES.c.deployment == str(name))
    return {row.version: row.recorded for row in connection.execute(query)}


def save_delegation(
    connection: Connection, name: DeploymentName, revision: int, delegation: str, now: datetime
) -> None:
    """Keep the delegation of a revision's actor."""
    row = {
        "deployment": str(name),
        "revision": revision,
        "delegation": delegation,
        "renew_time": now,
    }
    statement = insert(connection, DELEGATIONS).values(row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["deployment", "revision"],
            set_={"delegation": delegation, "renew_time": now},
        )
    )


def find_delegation(connection: Connection, name: DeploymentName, revision: int) -> str | None:
    """Return the delegation of a revision's actor."""
    query = sa.select(DELEGATIONS.c.delegation).where(
        DELEGATIONS.c.deployment == str(name), DELEGATIONS.c.revision == revision
    )
    found: str | None = connection.execute(query).scalar()
    return found


def list_aging_delegations(
    connection: Connection, *, before: datetime
) -> list[tuple[DeploymentName, int]]:
    """Name the running revisions whose delegation was last renewed before a moment."""
    same = sa.and_(
        DELEGATIONS.c.deployment == REVISIONS.c.deployment,
        DELEGATIONS.c.revision == REVISIONS.c.number,
    )
    query = (
        sa.select(DELEGATIONS.c.deployment, DELEGATIONS.c.revision)
        .join(REVISIONS, same)
        .where(REVISIONS.c.running.is_(sa.true()), DELEGATIONS.c.renew_time < before)
    )
    rows = connection.execute(query).all()
    return [(DeploymentName.parse(row.deployment), row.revision) for row in rows]
