"""Queries of controllers' leases: who carries out what is deployed where."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import EnvironmentName
from services.deployer.store.environments import external_ones
from services.deployer.store.tables import CONTROLLERS, insert

EVERYTHING = EnvironmentName("-", "-")


def lock_leases(connection: Connection, now: datetime) -> None:
    """Let nobody else take a lease until this transaction has ended."""
    row = {"scope": str(EVERYTHING), "holder": "", "expire_time": now}
    connection.execute(insert(connection, CONTROLLERS).values(row).on_conflict_do_nothing())
    query = sa.select(CONTROLLERS.c.scope).where(CONTROLLERS.c.scope == str(EVERYTHING))
    connection.execute(query.with_for_update()).one()


def others(
    connection: Connection, scope: EnvironmentName, controller: str, now: datetime
) -> dict[EnvironmentName, str]:
    """Return the leases of other controllers over what is watched or a part of it."""
    query = sa.select(CONTROLLERS.c.scope, CONTROLLERS.c.holder).where(
        CONTROLLERS.c.holder != controller, CONTROLLERS.c.expire_time > now
    )
    found = {
        EnvironmentName.parse(row.scope, wildcard=True): str(row.holder)
        for row in connection.execute(query)
    }
    overlapping = {other: holder for other, holder in found.items() if _overlap(scope, other)}
    # Leases of many environments leave EXTERNAL ones out, as their watches do.
    external = external_ones(connection, {scope, *overlapping})
    return {
        other: holder
        for other, holder in overlapping.items()
        if other == scope or external.isdisjoint((scope, other))
    }


def take_lease(
    connection: Connection, scope: EnvironmentName, holder: str, expire_time: datetime
) -> None:
    """Write down who has the lease of what is watched."""
    row = {"scope": str(scope), "holder": holder, "expire_time": expire_time}
    statement = insert(connection, CONTROLLERS).values(row)
    values = {"holder": holder, "expire_time": expire_time}
    connection.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=values))


def lease_holder(
    connection: Connection, name: EnvironmentName, now: datetime, *, external: bool
) -> str:
    """Return which controller holds an environment's lease, the narrowest one; empty: none.

    Leases of many environments leave EXTERNAL ones out, as their watches do.
    """
    wider = (EnvironmentName(name.project, "-"), EVERYTHING)
    scopes = tuple(str(scope) for scope in (name, *(() if external else wider)))
    query = sa.select(CONTROLLERS.c.scope, CONTROLLERS.c.holder).where(
        CONTROLLERS.c.scope.in_(scopes), CONTROLLERS.c.expire_time > now
    )
    held = {row.scope: row.holder for row in connection.execute(query)}
    return next((held[scope] for scope in scopes if scope in held), "")


def _overlap(left: EnvironmentName, right: EnvironmentName) -> bool:
    """Say whether an environment may be of both patterns."""
    projects, environments = (left.project, right.project), (left.environment, right.environment)
    return all("-" in pair or pair[0] == pair[1] for pair in (projects, environments))
