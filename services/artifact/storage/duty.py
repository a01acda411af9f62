"""A duty that one replica at a time has, by a lease in the database."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from services.artifact.storage import sweep_store
from services.common.sql.database import Database


class Duty:
    """Something that one replica does at a time."""

    def __init__(self, name: str, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._name = name
        self._database = database
        self._clock = clock
        self._holder = secrets.token_hex(8)

    async def take(self, duration: timedelta) -> bool:
        """Take the duty for some time, or keep it; False while another replica has it."""
        now = self._clock()
        return await self._database.write(
            lambda tx: sweep_store.take_duty(
                tx.connection, self._name, self._holder, now=now, until=now + duration
            )
        )
