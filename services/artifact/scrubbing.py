"""Reading over what is stored, so that damage is known before somebody needs the bytes.

What is found unreadable counts as missing from then on: it is refused with
DATA_LOSS, never delivered, and a push of the same bytes repairs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from services.artifact import store, sweep_store
from services.artifact.blobs import BlobStore
from services.artifact.depot import Depot
from services.artifact.domain import ChunkRef, StoredFile
from services.artifact.duty import Duty
from services.artifact.manifest import ManifestEntry
from services.artifact.packs import CorruptChunkError, Span, plan_spans, read_span
from services.artifact.sweep_store import PackRow
from services.common.database import Database, Transaction
from services.common.errors import ServiceError
from services.common.names import ArtifactName

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_DUTY = timedelta(minutes=5)
_REPORT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast stored bytes are read over, in bytes a second, and how often each."""

    rate: float
    period: timedelta


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not what it was."""

    path: str
    digest: bytes
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """How far an artifact has been read over, and what was found since the last report."""

    done: int
    total: int
    findings: tuple[Finding, ...]


class Scrubbing:
    """Reads stored bytes over."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        depot: Depot,
        threads: Executor,
        clock: Callable[[], datetime],
        pace: Pace,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._depot = depot
        self._threads = threads
        self._clock = clock
        self._pace = pace
        self._duty = Duty("scrub", database=database, clock=clock)

    async def run_forever(self) -> None:
        """Read over one pack after another, at the rate, until cancelled."""
        while self._pace.rate > 0:
            try:
                if not await self._duty.take(_DUTY) or not await self.scrub_next():
                    await asyncio.sleep(min(_IDLE_SECONDS, self._pace.period.total_seconds()))
            except ServiceError as error:  # the database or the storage is away
                logger.warning("not scrubbed", extra={"reason": error.reason})
                await asyncio.sleep(_IDLE_SECONDS)

    async def scrub_next(self) -> bool:
        """Read over the pack that is due longest; False when none is."""
        before = self._clock() - self._pace.period
        pack = await self._database.read(
            lambda tx: sweep_store.next_to_verify(tx.connection, before=before)
        )
        if pack is None:
            return False
        chunks = await self._database.read(partial(_chunks_of, pack))
        for span in plan_spans(chunks):
            for ref in await self._damaged(span):
                logger.error("damaged", extra={"pack": pack.pack, "chunk": ref.digest.hex()})
                await self._database.write(partial(_mark, pack.project, ref))
            await asyncio.sleep(span.length / self._pace.rate)
        now = self._clock()
        await self._database.write(
            lambda tx: sweep_store.set_verified(tx.connection, pack.pack, now)
        )
        return True

    async def verify(self, name: ArtifactName) -> AsyncIterator[Report]:
        """Read over an artifact's files; report now and then, and last of all at the end.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; CORRUPT_BYTES when its manifest is damaged.
        """
        manifest = await self._depot.manifest(name)
        found: list[Finding] = []
        done = reported = 0
        known: dict[bytes, ChunkRef | None] = {}
        for entry in manifest.entries:
            if entry.digest not in known:
                known[entry.digest] = await self._verify_file(name.project, entry)
            damaged = known[entry.digest]
            if damaged is not None:
                found.append(Finding(entry.path, entry.digest, damaged.digest))
            done += entry.size
            if done - reported >= _REPORT_BYTES:
                yield Report(done, manifest.size, tuple(found))
                reported, found = done, []
        yield Report(done, manifest.size, tuple(found))

    async def _verify_file(self, project: str, entry: ManifestEntry) -> ChunkRef | None:
        """Return the first damaged chunk of a file; None when it is sound."""
        file, refs = await self._database.read(partial(_locate, project, entry.digest))
        if file is None:
            return ChunkRef(entry.digest, "", 0, 0)
        for chunk in file.chunks:
            if chunk not in refs:
                return ChunkRef(chunk, "", 0, 0)
        damaged: list[ChunkRef] = []
        for span in plan_spans(refs[chunk] for chunk in file.chunks):
            damaged += await self._damaged(span)
        for ref in damaged:
            await self._database.write(partial(_mark, project, ref))
        if not damaged:
            sound = list({refs[chunk] for chunk in file.chunks})
            await self._database.write(lambda tx: store.mark_sound(tx.connection, project, sound))
        return damaged[0] if damaged else None

    async def _damaged(self, span: Span) -> list[ChunkRef]:
        """Return the chunks of a span that cannot be read as they were."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _damaged_in, self._blobs, span)


def _damaged_in(blobs: BlobStore, span: Span) -> list[ChunkRef]:
    try:
        read_span(blobs, span)
    except CorruptChunkError as error:
        if len(span.chunks) == 1:
            return [error.ref]
        found: list[ChunkRef] = []
        for ref in span.chunks:
            found += _damaged_in(blobs, Span(ref.pack, ref.offset, ref.length, (ref,)))
        return found
    return []


def _chunks_of(pack: PackRow, tx: Transaction) -> list[ChunkRef]:
    return sweep_store.chunks_of(tx.connection, pack.pack)


def _mark(project: str, ref: ChunkRef, tx: Transaction) -> None:
    store.mark_damaged(tx.connection, project, ref)


def _locate(
    project: str, digest: bytes, tx: Transaction
) -> tuple[StoredFile | None, dict[bytes, ChunkRef]]:
    file = store.find_files(tx.connection, project, [digest], damaged=True).get(digest)
    if file is None:
        return None, {}
    chunks = list(set(file.chunks))
    return file, store.find_chunks(tx.connection, project, chunks, damaged=True)
