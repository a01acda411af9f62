"""Trimming: the events of builds that ended long ago are forgotten, and spent wake-ups."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from services.builder import store, transitions
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import trim

BATCH = 500
WAKE_UPS = timedelta(minutes=10)
"""How long wake-ups are kept: whoever was not woken by one has looked by itself since."""


class Trimming:
    """Forgets events; the last of each build, its outcome, always stays."""

    def __init__(
        self, *, database: Database, clock: Callable[[], datetime], age: timedelta | None
    ) -> None:
        self._database = database
        self._clock = clock
        self._age = age

    async def trim(self) -> None:
        """Trim once what is old enough; no age: nothing of a build ever is."""
        now = self._clock()
        for topic in (transitions.QUEUE, transitions.RECALLS):
            await self._trim(topic, now - WAKE_UPS)
        while self._age is not None:
            before = now - self._age
            builds = await self._database.read(
                lambda tx, before=before: store.builds_to_trim(tx.connection, before)  # type: ignore[misc]
            )
            for build in builds:
                # All of it ended before: a late clock of a replica must not keep some.
                await self._trim(build.topic, now)
                await self._database.write(
                    lambda tx, build=build: store.note_trimmed(tx.connection, build.name)  # type: ignore[misc]
                )
            if not builds:
                return

    async def _trim(self, topic: str, before: datetime) -> None:
        def forget(tx: Transaction) -> int:
            return trim(tx.connection, topic, before=before, keep=1, limit=BATCH)

        while await self._database.write(forget) == BATCH:
            pass
