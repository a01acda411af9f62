"""Trimming: rings for reconcilers and controllers are forgotten once nobody can need them.

The journals of deployments are their history, and stay.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from services.common.errors import ServiceError
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import trim
from services.deployer.rollouts import journal

logger = logging.getLogger(__name__)

TRIM_SECONDS = 600.0
BATCH = 500
KEPT = {
    journal.WORK: timedelta(minutes=10),  # who was not woken by one has looked by itself since
    journal.ASSIGNMENTS: timedelta(days=1),  # a controller away for longer begins anew
}


class Trimming:
    """Forgets what was told of changes that are long over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Trim now and then until cancelled."""
        while True:
            try:
                await self.trim(datetime.now(UTC))
            except ServiceError as error:
                logger.warning("events not trimmed, later again", extra={"error": error.message})
            await asyncio.sleep(TRIM_SECONDS)

    async def trim(self, now: datetime) -> None:
        """Trim once what is old enough; the newest of each topic stays."""
        for topic, age in KEPT.items():
            while await self._database.write(
                lambda tx, topic=topic, before=now - age: _forget(tx, topic, before)  # type: ignore[misc]
            ):
                pass


def _forget(tx: Transaction, topic: str, before: datetime) -> bool:
    """Forget some; say whether there may be more."""
    return trim(tx.connection, topic, before=before, keep=1, limit=BATCH) == BATCH
