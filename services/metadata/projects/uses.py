"""When tokens were last used: noted in memory, written now and then, all in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from services.common.errors import ServiceError
from services.common.sql.database import Database
from services.metadata.projects import store

logger = logging.getLogger(__name__)


class Uses:
    """Notes the uses of tokens; what was not written when the process dies is forgotten."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._noted: dict[str, datetime] = {}

    def note(self, token: str) -> None:
        """Note that a token is being used."""
        self._noted[token] = self._clock()

    async def run_forever(self) -> None:
        """Write what was noted, again and again."""
        while True:
            await asyncio.sleep(self._seconds)
            await self._write()

    async def _write(self) -> None:
        noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            await self._database.write(lambda tx: store.note_uses(tx.connection, noted))
        except ServiceError as error:
            logger.warning("uses of tokens not noted", extra={"error": error.message})
            self._noted = {**noted, **self._noted}
