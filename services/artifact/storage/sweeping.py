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

from services.artifact.blobs import BlobStore, disk_errors
from services.artifact.domain import Garbage, GarbageKind
from services.artifact.storage import sweep_store
from services.artifact.storage.compaction import Compaction
from services.artifact.storage.duty import Duty
from services.artifact.storage.packs import PackFolder
from services.artifact.storage.sweep_store import PackRow
from services.common.errors import ServiceError
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

_AT_ONCE = 200
_DRY_LIMIT = 100_000
_FILES_OF_ONE = 20
_CHUNKS_OF_ONE = 10


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
    temporary: timedelta


class Sweeping:
    """Lets go of what nothing needs."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        folder: PackFolder,
        compaction: Compaction,
        threads: Executor,
        clock: Callable[[], datetime],
        pace: Pace,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._folder = folder
        self._compaction = compaction
        self._threads = threads
        self._clock = clock
        self._pace = pace
        self._duty = Duty("sweep", database=database, clock=clock)

    async def run_forever(self) -> None:
        """Sweep now and then, one replica at a time, until cancelled."""
        interval, loop = self._pace.interval, asyncio.get_running_loop()
        while interval:
            await asyncio.sleep(interval.total_seconds())
            try:
                await loop.run_in_executor(self._threads, self._remove_unfinished)
                if await self._duty.take(interval * 2):
                    await self.sweep(None)
                    await self._compaction.compact()
            except ServiceError as error:  # the database or the storage is away
                logger.warning("not swept", extra={"reason": error.reason})

    def _remove_unfinished(self) -> None:
        with disk_errors():
            self._folder.sweep(older_than_seconds=self._pace.temporary.total_seconds())

    async def sweep(self, project: str | None) -> list[Garbage]:
        """Let go of what nothing needs, in a project or everywhere; return what went."""
        now = self._clock()
        this = _Pass(project, now, now - self._pace.grace, now - self._pace.unfinished)
        gone: list[Garbage] = []
        for delete in (_delete_artifacts, _delete_files):
            gone += await self._exhaust(partial(delete, this, _AT_ONCE))
        while await self._database.write(partial(_condemn_chunks, this, _AT_ONCE)):
            continue
        gone += await self._exhaust(partial(_delete_chunks, this, _AT_ONCE))
        await self._database.write(partial(_condemn_packs, this))
        gone += await self._delete_packs(project, this.condemned_before)
        if gone:
            freed = sum(item.size for item in gone if item.kind is GarbageKind.PACK)
            logger.info("swept", extra={"items": len(gone), "freed_bytes": freed})
        return gone

    async def preview(self, project: str | None) -> list[Garbage]:
        """Return what goes in time if nothing changes: a sweep without grace, taken back."""
        now = self._clock()
        this = _Pass(project, now, now, now - self._pace.unfinished)

        def look(tx: Transaction) -> None:
            gone = _delete_artifacts(this, _DRY_LIMIT, tx) + _delete_files(this, _DRY_LIMIT, tx)
            _condemn_chunks(this, _DRY_LIMIT, tx)
            gone += _delete_chunks(this, _DRY_LIMIT, tx)
            _condemn_packs(this, tx)
            gone += (_garbage(pack) for pack in _condemned(this, _DRY_LIMIT, tx))
            gone += self._compaction.preview(tx, project)
            raise _NotMeantError(gone)

        try:
            await self._database.write(look)
        except _NotMeantError as found:
            return found.garbage
        raise AssertionError

    async def _exhaust(self, step: Callable[[Transaction], list[Garbage]]) -> list[Garbage]:
        """Do a step, a transaction each time, until it finds nothing."""
        gone: list[Garbage] = []
        while found := await self._database.write(step):
            gone += found
        return gone

    async def _delete_packs(self, project: str | None, before: datetime) -> list[Garbage]:
        """Delete the bytes of packs, then their rows: bytes are never unknown."""
        gone: list[Garbage] = []
        loop = asyncio.get_running_loop()
        condemned = _Pass(project, before, before, before)
        while packs := await self._database.read(partial(_condemned, condemned, _AT_ONCE)):
            for pack in packs:
                await loop.run_in_executor(self._threads, self._blobs.delete, pack.pack)
                if await self._database.write(partial(_forget, pack)):
                    gone.append(_garbage(pack))
        return gone


@dataclass(frozen=True, slots=True)
class _Pass:
    """One look for what nothing needs."""

    project: str | None
    now: datetime
    condemned_before: datetime
    unsealed_before: datetime


def _delete_artifacts(this: _Pass, limit: int, tx: Transaction) -> list[Garbage]:
    few = limit // _FILES_OF_ONE  # each may list very many files
    return sweep_store.delete_artifacts(tx.connection, this.project, now=this.now, limit=few)


def _delete_files(this: _Pass, limit: int, tx: Transaction) -> list[Garbage]:
    return sweep_store.delete_files(tx.connection, this.project, now=this.now, limit=limit)


def _condemn_chunks(this: _Pass, limit: int, tx: Transaction) -> int:
    many = limit * _CHUNKS_OF_ONE
    return sweep_store.condemn_chunks(tx.connection, this.project, now=this.now, limit=many)


def _delete_chunks(this: _Pass, limit: int, tx: Transaction) -> list[Garbage]:
    return sweep_store.delete_chunks(
        tx.connection,
        this.project,
        now=this.now,
        before=this.condemned_before,
        limit=limit * _CHUNKS_OF_ONE,
    )


def _condemn_packs(this: _Pass, tx: Transaction) -> None:
    sweep_store.condemn_packs(
        tx.connection, this.project, now=this.now, unsealed_before=this.unsealed_before
    )


def _condemned(this: _Pass, limit: int, tx: Transaction) -> list[PackRow]:
    return sweep_store.condemned_packs(
        tx.connection, this.project, before=this.condemned_before, limit=limit
    )


def _forget(pack: PackRow, tx: Transaction) -> bool:
    return sweep_store.forget_pack(tx.connection, pack)


def _garbage(pack: PackRow) -> Garbage:
    name = f"projects/{pack.project}: pack {pack.pack}"
    return Garbage(GarbageKind.PACK, name, pack.size, "nothing lies in it")
