"""Approvals: who lets which version go live in which environment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from services.common.errors import invalid_field, not_found
from services.common.names import EnvironmentName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.deployer.domain import Approval
from services.deployer.metadata import Metadata
from services.deployer.store import approvals as store
from services.deployer.store.environments import find_environment


@dataclass(frozen=True, slots=True)
class _Done:
    """The answer that is kept for a repeat of a withdrawal."""


class Approvals:
    """Approves versions, and takes it back."""

    def __init__(self, database: Database, metadata: Metadata) -> None:
        self._database = database
        self._metadata = metadata

    async def approve(
        self,
        name: EnvironmentName,
        version: str,
        *,
        principal: str,
        reason: str,
        credential: str,
        key: Key | None,
    ) -> Approval:
        """Approve a READY version as oneself."""
        found = await self._version(name, version, credential)
        approval = Approval(found, principal, reason, datetime.now(UTC))

        def save(tx: Transaction) -> Approval:
            _check(tx, name)
            store.save_approval(tx.connection, name, approval)
            return approval

        return await self._database.write(lambda tx: once(tx, key, Approval, lambda: save(tx)))

    async def withdraw(
        self,
        name: EnvironmentName,
        version: str,
        *,
        principal: str,
        credential: str,
        key: Key | None,
    ) -> None:
        """Take one's own approval back."""
        found = await self._version(name, version, credential)

        def delete(tx: Transaction) -> _Done:
            _check(tx, name)
            store.delete_approval(tx.connection, name, found, principal)
            return _Done()

        await self._database.write(lambda tx: once(tx, key, _Done, lambda: delete(tx)))

    async def list_all(
        self, name: EnvironmentName, version: str, *, credential: str
    ) -> list[Approval]:
        """Return the approvals of a version, oldest first."""
        found = await self._version(name, version, credential)

        def read(tx: Transaction) -> list[Approval]:
            _check(tx, name)
            return store.list_approvals(tx.connection, name, found)

        return await self._database.read(read)

    async def _version(self, name: EnvironmentName, version: str, credential: str) -> str:
        found = (await self._metadata.resolve(version, credential=credential)).name
        if VersionName.parse(found).project != name.project:
            raise invalid_field("version", "must be of the environment's project")
        return found


def _check(tx: Transaction, name: EnvironmentName) -> None:
    if find_environment(tx.connection, name) is None:
        raise not_found(name)
