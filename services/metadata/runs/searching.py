"""Searching runs."""

from __future__ import annotations

from services.common.database import Database
from services.common.names import ModelName
from services.metadata.listing import Listing, Page
from services.metadata.runs import search_store
from services.metadata.runs.domain import Run


class RunSearch:
    """Finds runs; no search takes longer than `seconds`."""

    def __init__(self, *, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds

    async def list_runs(self, parent: ModelName, listing: Listing) -> Page[Run]:
        """Return a page of a model's runs; model `-`: of all models.

        Raises:
            ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN, GOAL_MISSING,
                LIMIT_EXCEEDED.
        """
        return await self._database.read(
            lambda tx: search_store.list_runs(tx.connection, parent, listing, seconds=self._seconds)
        )
