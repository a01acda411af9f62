"""Environments and their gates: create, read, change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.common.errors import already_exists, etag_mismatch, not_found
from services.common.names import EnvironmentName, ProjectName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.deployer.domain import Environment, Gate, TargetKind
from services.deployer.metadata import Metadata
from services.deployer.store import environments as store


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """What to change of an environment; None leaves a value as it is."""

    description: str | None
    gates: tuple[Gate, ...] | None
    etag: str
    """The etag it must have; empty: any."""


class Environments:
    """The places where models go live."""

    def __init__(self, database: Database, metadata: Metadata) -> None:
        self._database = database
        self._metadata = metadata

    async def create(
        self,
        name: EnvironmentName,
        *,
        description: str,
        gates: tuple[Gate, ...],
        target: TargetKind,
        credential: str,
        key: Key | None,
    ) -> Environment:
        """Create an environment in a project that exists."""
        await self._metadata.check_project(ProjectName(name.project), credential=credential)
        now = datetime.now(UTC)
        environment = Environment(name, description, gates, "", 1, now, now, target)

        def insert(tx: Transaction) -> Environment:
            if not store.insert_environment(tx.connection, environment):
                raise already_exists(name)
            return environment

        return await self._database.write(lambda tx: once(tx, key, Environment, lambda: insert(tx)))

    async def get(self, name: EnvironmentName) -> Environment:
        """Return an environment."""
        found = await self._database.read(lambda tx: store.find_environment(tx.connection, name))
        if found is None:
            raise not_found(name)
        return found

    async def list_page(self, project: str, *, after: str, limit: int) -> list[Environment]:
        """Return environments of a project by name, after one."""
        return await self._database.read(
            lambda tx: store.list_environments(tx.connection, project, after=after, limit=limit)
        )

    async def update(
        self, name: EnvironmentName, change: EnvironmentChange, *, key: Key | None
    ) -> Environment:
        """Change an environment's description or gates."""
        return await self._database.write(
            lambda tx: once(tx, key, Environment, lambda: _update(tx, name, change))
        )


def _update(tx: Transaction, name: EnvironmentName, change: EnvironmentChange) -> Environment:
    found = store.find_environment(tx.connection, name, lock=True)
    if found is None:
        raise not_found(name)
    if change.etag and change.etag != found.etag:
        raise etag_mismatch(name, current=found.etag)
    changed = replace(
        found,
        description=found.description if change.description is None else change.description,
        gates=found.gates if change.gates is None else change.gates,
        edition=found.edition + 1,
        update_time=datetime.now(UTC),
    )
    store.update_environment(tx.connection, changed)
    return changed
