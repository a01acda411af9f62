"""Reading deployments: one, pages of them, their history, their journal as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.common import events
from services.common.errors import not_found
from services.common.events import EventBus
from services.common.names import DeploymentName, EnvironmentName
from services.common.sql import outbox
from services.common.sql.database import Database, Transaction
from services.deployer.domain import Deployment, Revision
from services.deployer.rollouts import journal
from services.deployer.rollouts.journal import Told
from services.deployer.store import deployments as store


@dataclass(frozen=True, slots=True)
class News:
    """Journal entries, and the deployment as it is now; None when nothing happened."""

    told: list[Told]
    deployment: Deployment | None
    sequence: int


class Reading:
    """What people see of deployments."""

    def __init__(self, database: Database, bus: EventBus) -> None:
        self._database = database
        self._bus = bus

    async def get(self, name: DeploymentName) -> Deployment:
        """Return a deployment."""
        return await self._database.read(lambda tx: _get(tx, name))

    async def list_page(
        self, parent: EnvironmentName, *, after: str, limit: int
    ) -> list[Deployment]:
        """Return deployments of an environment, or of all, by name, after one."""
        return await self._database.read(
            lambda tx: store.list_deployments(tx.connection, parent, after=after, limit=limit)
        )

    async def list_revisions(
        self, name: DeploymentName, *, before: int | None, limit: int
    ) -> list[Revision]:
        """Return a deployment's revisions, newest first, before one."""

        def work(tx: Transaction) -> list[Revision]:
            _get(tx, name)
            return store.list_revisions(tx.connection, name, before=before, limit=limit)

        return await self._database.read(work)

    async def follow(self, name: DeploymentName, after: int | None) -> AsyncIterator[News]:
        """Yield a deployment's journal after a sequence, or from now, for ever."""
        topic = journal.topic(name)
        sequence, deployment = await self._database.read(
            lambda tx: (outbox.last_sequence(tx.connection, topic), _get(tx, name))
        )
        if after is None:
            yield News([], deployment, sequence)
            after = sequence
        async for changed in events.tail(self._database, self._bus, topic, after):
            after = changed[-1].sequence if changed else after
            told = [journal.read(event) for event in changed]
            yield News(told, await self.get(name) if told else None, after)


def _get(tx: Transaction, name: DeploymentName) -> Deployment:
    found = store.find_deployment(tx.connection, name)
    if found is None or not found.desired_revision:
        raise not_found(name)
    return found
