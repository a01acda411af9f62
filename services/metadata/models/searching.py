"""Searching versions."""

from __future__ import annotations

from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.metadata.listing import Listing, Page
from services.metadata.models import version_search_store
from services.metadata.models.domain import Version
from services.metadata.watching.cursors import Stream, watchable


class VersionSearch:
    """Finds versions, within some seconds."""

    def __init__(self, *, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds

    async def list_versions(self, parent: ModelName, listing: Listing) -> Page[Version]:
        """Return a page of a model's versions; model `-`: of all models.

        Raises:
            ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN, GOAL_MISSING,
                LIMIT_EXCEEDED.
        """

        def read(tx: Transaction) -> Page[Version]:
            return version_search_store.list_versions(
                tx.connection, parent, listing, seconds=self._seconds
            )

        return await self._database.read(
            lambda tx: watchable(tx, Stream.MODELS, parent.project, listing, lambda: read(tx))
        )
