"""The sweep: letting go of what nothing needs, without ever taking what anything does.

References are counted in the transactions that make and end them, so what is
garbage is a question to the database. From the top down: artifacts without hold
or lease, files that no artifact lists, chunks that are in no file (marked in one
sweep, deleted by another after a grace), packs in which nothing lies (their bytes
go after the same grace: readers that were told where to read may be at it).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from services.artifact import sweep_store
from services.artifact.blobs import BlobStore
from services.artifact.compaction import Compaction
from services.artifact.domain import Garbage, GarbageKind
from services.artifact.duty import Duty
from services.artifact.sweep_store import PackRow
from services.common.database import Database, Transaction
from services.common.errors import ServiceError

logger = logging.getLogger(__name__)

_AT_ONCE = 200
_DRY_LIMIT = 100_000
Step = Callable[[Transaction, str | None, datetime, int], list[Garbage]]


class _NotMeantError(Exception):
    """Ends the transaction of a dry run; carries what it found."""

    def __init__(self, garbage: list[Garbage]) -> None:
        super().__init__("dry run")
        self.garbage = garbage


@dataclass(frozen=True, slots=True)
class Pace:
    """How often is swept, and how long what goes is left where it is."""

    interval: timedelta
    grace: timedelta
    unfinished: timedelta


class Sweeping:
    """Lets go of what nothing needs."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        compaction: Compaction,
        threads: Executor,
        clock: Callable[[], datetime],
        pace: Pace,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._compaction = compaction
        self._threads = threads
        self._clock = clock
        self._pace = pace
        self._duty = Duty("sweep", database=database, clock=clock)

    async def run_forever(self) -> None:
        """Sweep now and then, one replica at a time, until cancelled."""
        interval = self._pace.interval
        while interval:
            await asyncio.sleep(interval.total_seconds())
            try:
                if await self._duty.take(interval * 2):
                    await self.sweep(None)
                    await self._compaction.compact()
            except ServiceError as error:  # the database or the storage is away
                logger.warning("not swept", extra={"reason": error.reason})

    async def sweep(self, project: str | None) -> list[Garbage]:
        """Let go of what nothing needs, in a project or everywhere; return what went."""
        now = self._clock()
        gone: list[Garbage] = []
        for step in self._steps(now):
            more = True
            while more:
                found = await self._database.write(partial(_run, step, project, now, _AT_ONCE))
                gone += found
                more = bool(found)
        gone += await self._delete_packs(project, now - self._pace.grace)
        if gone:
            freed = sum(item.size for item in gone if item.kind is GarbageKind.PACK)
            logger.info("swept", extra={"items": len(gone), "freed_bytes": freed})
        return gone

    async def preview(self, project: str | None) -> list[Garbage]:
        """Return what goes in time if nothing changes: a sweep without grace, taken back."""
        now = self._clock()

        def look(tx: Transaction) -> None:
            gone: list[Garbage] = []
            for step in self._steps(now, grace=timedelta()):
                gone += step(tx, project, now, _DRY_LIMIT)
            packs = sweep_store.condemned_packs(
                tx.connection, project, before=now, limit=_DRY_LIMIT
            )
            gone += (_garbage(pack) for pack in packs)
            raise _NotMeantError(gone)

        try:
            await self._database.write(look)
        except _NotMeantError as found:
            return found.garbage
        raise AssertionError

    def _steps(self, now: datetime, grace: timedelta | None = None) -> list[Step]:
        grace = self._pace.grace if grace is None else grace
        unsealed = now - self._pace.unfinished

        def artifacts(tx: Transaction, of: str | None, at: datetime, limit: int) -> list[Garbage]:
            return sweep_store.delete_artifacts(tx.connection, of, now=at, limit=limit)

        def files(tx: Transaction, of: str | None, at: datetime, limit: int) -> list[Garbage]:
            return sweep_store.delete_files(tx.connection, of, now=at, limit=limit)

        def condemn(tx: Transaction, of: str | None, at: datetime, limit: int) -> list[Garbage]:
            sweep_store.condemn_chunks(tx.connection, of, now=at)
            return []

        def chunks(tx: Transaction, of: str | None, at: datetime, limit: int) -> list[Garbage]:
            before = at - grace
            return sweep_store.delete_chunks(
                tx.connection, of, now=at, before=before, limit=limit * 10
            )

        def packs(tx: Transaction, of: str | None, at: datetime, limit: int) -> list[Garbage]:
            sweep_store.condemn_packs(tx.connection, of, now=at, unsealed_before=unsealed)
            return []

        return [artifacts, files, condemn, chunks, packs]

    async def _delete_packs(self, project: str | None, before: datetime) -> list[Garbage]:
        """Delete the bytes of packs, then their rows: bytes are never unknown."""
        gone: list[Garbage] = []
        loop = asyncio.get_running_loop()
        while packs := await self._database.read(
            lambda tx: sweep_store.condemned_packs(
                tx.connection, project, before=before, limit=_AT_ONCE
            )
        ):
            for pack in packs:
                await loop.run_in_executor(self._threads, self._blobs.delete, pack.pack)
                await self._database.write(partial(_forget, pack))
                gone.append(_garbage(pack))
        return gone


def _run(
    step: Step, project: str | None, now: datetime, limit: int, tx: Transaction
) -> list[Garbage]:
    return step(tx, project, now, limit)


def _forget(pack: PackRow, tx: Transaction) -> None:
    sweep_store.forget_pack(tx.connection, pack)


def _garbage(pack: PackRow) -> Garbage:
    return Garbage(GarbageKind.PACK, f"projects/{pack.project}: pack {pack.pack}", pack.size)
