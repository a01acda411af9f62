"""A service's trail: what no write records is gathered, and all of it is sealed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace

from modelyard.auditing import Head

from services.common.audit import store
from services.common.audit.entries import Entry, Sealed, add_entries
from services.common.errors import ServiceError
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

SEAL_SECONDS = 0.4
"""How long what was recorded waits for more, to be sealed with it."""
LOOK_SECONDS = 10.0
"""How often is looked for what another replica recorded and, being killed, did not seal."""
GATHERED = 1_000
"""So many different entries are gathered in a moment; more are counted by method."""

_Kind = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the trail, and where the chain ended when it was read."""

    entries: tuple[Sealed, ...]
    next_token: str
    head: Head


class Trail:
    """The audit trail of one service."""

    def __init__(self, *, database: Database, service: str) -> None:
        self._database = database
        self.service = service
        self._gathered: dict[_Kind, Entry] = {}
        self._recorded = asyncio.Event()
        database.on_record(self._recorded.set)

    def gather(self, entry: Entry) -> None:
        """Record what no write of the service does; it is written within a moment.

        Entries that are alike are counted, so that nobody can fill the database by being refused.
        """
        kind = (entry.actor, entry.delegation, entry.method, entry.resource, entry.outcome)
        if kind not in self._gathered and len(self._gathered) >= GATHERED:
            entry = replace(entry, actor="", delegation="", resource="", request_id="")
            kind = ("", "", entry.method, "", entry.outcome)
        before = self._gathered.get(kind)
        self._gathered[kind] = replace(before, count=before.count + 1) if before else entry
        self._recorded.set()

    async def run(self) -> None:
        """Write what was gathered and seal what was written, until cancelled."""
        try:
            while True:
                await self._settle_if_possible()
                await self._wait()
        finally:
            await self._settle_if_possible()

    async def settle(self) -> None:
        """Write what was gathered so far, and seal what was written."""
        gathered, self._gathered = self._gathered, {}
        if gathered:
            entries = list(gathered.values())
            try:
                await self._database.write(lambda tx: add_entries(tx.connection, entries))
            except ServiceError:
                for entry in entries:
                    self.gather(entry)
                raise
        while await self._database.lookup(lambda tx: store.is_waiting(tx.connection)):
            await self._database.write(lambda tx: store.seal(tx.connection, self.service))

    async def list_entries(self, *, where: str, order: str, size: int, token: str) -> Page:
        """Return a page of the chain.

        Raises:
            ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN.
        """

        def read(tx: Transaction) -> Page:
            head = store.find_head(tx.connection)
            entries, following = store.read_page(
                tx.connection, where=where, order=order, size=size, token=token
            )
            return Page(tuple(entries), following, head)

        return await self._database.read(read)

    async def _wait(self) -> None:
        """Wait until something is recorded here, and a little for more; or for the next look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._recorded.wait()
            await asyncio.sleep(SEAL_SECONDS)

    async def _settle_if_possible(self) -> None:
        self._recorded.clear()
        try:
            await self.settle()
        except ServiceError as error:  # the database is away: it is all there the next time
            self._recorded.set()
            logger.warning("audit entries wait", extra={"error": error.message})
