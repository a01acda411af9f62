"""Queries of controllers' leases: who carries out what is deployed where."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import EnvironmentName
from services.deployer.store.tables import CONTROLLERS, insert


def take_lease(
    connection: Connection,
    scope: EnvironmentName,
    holder: str,
    *,
    now: datetime,
    expire_time: datetime,
) -> str:
    """Take or extend the lease of what is watched; return who has it then."""
    row = {"scope": str(scope), "holder": holder, "expire_time": expire_time}
    statement = insert(connection, CONTROLLERS).values(row)
    taken = statement.on_conflict_do_update(
        index_elements=["scope"],
        set_={"holder": holder, "expire_time": expire_time},
        where=sa.or_(CONTROLLERS.c.holder == holder, CONTROLLERS.c.expire_time <= now),
    )
    connection.execute(taken)
    query = sa.select(CONTROLLERS.c.holder).where(CONTROLLERS.c.scope == str(scope))
    return str(connection.execute(query).scalar_one())


def lease_holder(
    connection: Connection, name: EnvironmentName, now: datetime, *, external: bool
) -> str:
    """Return which controller holds an environment's lease, the narrowest one; empty: none.

    Leases of many environments leave EXTERNAL ones out, as their watches do.
    """
    wider = (EnvironmentName(name.project, "-"), EnvironmentName("-", "-"))
    scopes = tuple(str(scope) for scope in (name, *(() if external else wider)))
    query = sa.select(CONTROLLERS.c.scope, CONTROLLERS.c.holder).where(
        CONTROLLERS.c.scope.in_(scopes), CONTROLLERS.c.expire_time > now
    )
    held = {row.scope: row.holder for row in connection.execute(query)}
    return next((held[scope] for scope in scopes if scope in held), "")
