"""Trimming of the ledgers: old changes are forgotten, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.errors import ServiceError
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import topics, trim

logger = logging.getLogger(__name__)

BATCH = 500


@dataclass(frozen=True, slots=True)
class Trimming:
    """How long and how many changes are kept, whatever their age; at least one is."""

    database: Database
    clock: Callable[[], datetime]
    age: timedelta
    keep: int
    interval: timedelta
    read_until: Callable[[Transaction, str], int | None]
    """Up to where those who must miss nothing have read a topic; None: nobody must."""

    async def run_forever(self) -> None:
        """Trim the ledgers now and then, until cancelled."""
        while True:
            await asyncio.sleep(self.interval.total_seconds())
            try:
                await self.trim()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("ledgers not trimmed", extra={"reason": error.reason})

    async def trim(self) -> None:
        """Trim every ledger once."""
        for topic in await self.database.read(lambda tx: topics(tx.connection)):
            while await self._trim(topic) == BATCH:
                pass

    async def _trim(self, topic: str) -> int:
        before = self.clock() - self.age

        def forget(tx: Transaction) -> int:
            until = self.read_until(tx, topic)
            return trim(
                tx.connection, topic, before=before, keep=self.keep, until=until, limit=BATCH
            )

        return await self.database.write(forget)
