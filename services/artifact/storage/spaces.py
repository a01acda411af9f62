"""The space that projects take, and how much they may."""

from __future__ import annotations

from services.artifact.domain import Usage
from services.artifact.storage import sweep_store
from services.common.sql.database import Database, Transaction


class Spaces:
    """Shows what projects store, and limits it."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def usage(self, project: str) -> Usage:
        """Return what a project stores."""
        return await self._database.read(lambda tx: sweep_store.usage(tx.connection, project))

    async def set_quota(self, project: str, quota: int | None) -> Usage:
        """Limit what a project stores, in bytes; None lifts the limit.

        What is stored already stays, even when it is more.
        """

        def change(tx: Transaction) -> Usage:
            sweep_store.set_quota(tx.connection, project, quota)
            return sweep_store.usage(tx.connection, project)

        return await self._database.write(change)
