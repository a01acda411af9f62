"""Giving back the bytes of what was removed for ever.

It is a crossing to the artifact service, owed from the transaction on in which a version
or a run went; this file owns it, and finishes what was left half done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from services.common.auth import Right
from services.common.errors import ServiceError
from services.common.sql.database import Database
from services.metadata.models import releases_store
from services.metadata.models.artifacts import Holds
from services.metadata.models.releases_store import Release
from services.metadata.projects.access import Access

logger = logging.getLogger(__name__)

RELEASE_SECONDS = 10.0
SWEEP_BATCH = 100


class Releasing:
    """Gives bytes back."""

    def __init__(
        self,
        *,
        database: Database,
        holds: Holds,
        access: Access,
        clock: Callable[[], datetime],
        interval: timedelta,
    ) -> None:
        self._database = database
        self._holds = holds
        self._access = access
        self._clock = clock
        self._interval = interval

    async def release(self, release: Release) -> bool:
        """Give back what something held; later, behind the others, if that cannot be now."""
        issued = self._access.mint(release.purger, release.holder, (Right.READ, Right.WRITE))
        try:
            await self._holds.release_holder(
                release.holder, credential=issued.credential, seconds=RELEASE_SECONDS
            )
        except ServiceError as error:
            logger.warning("bytes kept", extra={"holder": release.holder, "reason": error.reason})
            now = self._clock()
            await self._database.write(lambda tx: releases_store.owe(tx.connection, [release], now))
            return False
        await self._database.write(lambda tx: releases_store.end(tx.connection, release))
        return True

    async def sweep_forever(self) -> None:
        """Give back what is owed, until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                while await self._sweep():
                    pass
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("bytes not given back", extra={"reason": error.reason})

    async def _sweep(self) -> bool:
        """Give some of it back; say whether it is worth going on at once."""
        before = self._clock() - self._interval
        owed = await self._database.read(
            lambda tx: releases_store.list_owed(tx.connection, before=before, limit=SWEEP_BATCH)
        )
        given = [await self.release(release) for release in owed]
        return len(owed) == SWEEP_BATCH and any(given)
