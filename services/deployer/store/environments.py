"""Queries of environments."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import EnvironmentName
from services.deployer.domain import Environment, Gate, TargetKind
from services.deployer.store.tables import ENVIRONMENTS, insert


def insert_environment(connection: Connection, environment: Environment) -> bool:
    """Insert an environment; say whether its name was free."""
    statement = insert(connection, ENVIRONMENTS).values(_environment_row(environment))
    statement = statement.on_conflict_do_nothing().returning(ENVIRONMENTS.c.name)
    return connection.execute(statement).first() is not None


def update_environment(connection: Connection, environment: Environment) -> None:
    """Overwrite an environment."""
    connection.execute(
        ENVIRONMENTS.update()
        .where(ENVIRONMENTS.c.name == str(environment.name))
        .values(_environment_row(environment))
    )


def set_address(connection: Connection, name: EnvironmentName, address: str) -> None:
    """Note where an environment's predictions are served."""
    connection.execute(
        ENVIRONMENTS.update()
        .where(ENVIRONMENTS.c.name == str(name), ENVIRONMENTS.c.address != address)
        .values(address=address)
    )


def find_environment(
    connection: Connection, name: EnvironmentName, *, lock: bool = False
) -> Environment | None:
    """Return an environment, if it exists."""
    query = sa.select(ENVIRONMENTS).where(ENVIRONMENTS.c.name == str(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _environment(row)


def external_ones(connection: Connection, names: set[EnvironmentName]) -> set[EnvironmentName]:
    """Return which of some environments controllers that are not ours carry out."""
    query = sa.select(ENVIRONMENTS.c.name).where(
        ENVIRONMENTS.c.name.in_(sorted(str(name) for name in names)),
        ENVIRONMENTS.c.target == TargetKind.EXTERNAL,
    )
    found = connection.execute(query).scalars() if names else ()
    return {EnvironmentName.parse(name) for name in found}


def list_environments(
    connection: Connection, project: str, *, after: str, limit: int
) -> list[Environment]:
    """Return a project's environments by name, after one."""
    query = (
        sa.select(ENVIRONMENTS)
        .where(ENVIRONMENTS.c.project == project, ENVIRONMENTS.c.name > after)
        .order_by(ENVIRONMENTS.c.name)
        .limit(limit)
    )
    return [_environment(row) for row in connection.execute(query)]


def _environment_row(environment: Environment) -> dict[str, Any]:
    return {
        "name": str(environment.name),
        "project": environment.name.project,
        "description": environment.description,
        "gates": msgspec.msgpack.encode(environment.gates),
        "address": environment.address,
        "target": environment.target.value,
        "edition": environment.edition,
        "create_time": environment.create_time,
        "update_time": environment.update_time,
    }


def _environment(row: Any) -> Environment:
    return Environment(
        name=EnvironmentName.parse(row.name),
        description=row.description,
        gates=msgspec.msgpack.decode(row.gates, type=tuple[Gate, ...]),
        address=row.address,
        edition=row.edition,
        create_time=row.create_time,
        update_time=row.update_time,
        target=TargetKind(row.target),
    )
