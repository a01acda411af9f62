"""Reading over what is stored, so that damage is known before somebody needs the bytes.

What is found unreadable counts as missing from then on: it is refused with
DATA_LOSS, never delivered, and a push of the same bytes repairs it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from services.artifact import store
from services.artifact.blobs import BlobStore, unavailable
from services.artifact.depot import Depot
from services.artifact.domain import Chunk, ChunkRef, corrupt_bytes
from services.artifact.reading import ContentReader, Located
from services.artifact.storage import sweep_store
from services.artifact.storage.duty import Duty
from services.artifact.storage.packs import Span, plan_spans, salvage_span
from services.artifact.storage.sweep_store import PackRow
from services.artifact.transfers import store as grant_store
from services.common.errors import Reason, ServiceError
from services.common.names import ArtifactName
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 5.0
_DUTY = timedelta(minutes=5)
_ATTEMPTS = 10
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
        content: ContentReader,
        depot: Depot,
        threads: Executor,
        clock: Callable[[], datetime],
        pace: Pace,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._content = content
        self._depot = depot
        self._threads = threads
        self._clock = clock
        self._pace = pace
        self._duty = Duty("scrub", database=database, clock=clock)

    async def run_forever(self) -> None:
        """Read over one pack after another, at the rate, until cancelled."""
        while self._pace.rate > 0:
            try:
                if not await self._duty.take(_DUTY) or not (
                    await self.scrub_next() or await self.settle_next_claim()
                ):
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
            _, damaged = await self._read(span)
            for ref in await self._mark(pack.project, damaged):
                logger.error("damaged", extra={"pack": pack.pack, "chunk": ref.digest.hex()})
            await asyncio.sleep(span.length / self._pace.rate)
        now = self._clock()
        await self._database.write(
            lambda tx: sweep_store.set_verified(tx.connection, pack.pack, now)
        )
        return True

    async def settle_next_claim(self) -> bool:
        """Find out whether a file is what its sender said it is; False when all are known."""
        claim = await self._database.read(lambda tx: grant_store.next_claim(tx.connection))
        if claim is None:
            return False
        project, file = claim
        state = hashlib.sha256()
        try:
            async for piece in self._content.read(project, Located(file, 0, {})):
                state.update(piece)
        except ServiceError as error:
            if error.reason is not Reason.CORRUPT_BYTES:
                raise
        is_true = state.digest() == file.digest
        if not is_true:
            logger.error("not what its sender said", extra={"file": file.digest.hex()})
        await self._database.write(
            lambda tx: grant_store.settle_claim(
                tx.connection, project, file.digest, is_true=is_true
            )
        )
        await asyncio.sleep(file.size / self._pace.rate)
        return True

    async def verify(self, name: ArtifactName) -> AsyncIterator[Report]:
        """Read over an artifact's files; report now and then, and last of all at the end.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; CORRUPT_BYTES when its manifest is damaged.
        """
        manifest = await self._depot.manifest(name)
        # Read over as well: the depot may have it by heart.
        unreadable = await self._verify_file(name.project, bytes.fromhex(name.artifact))
        if unreadable is not None:
            raise corrupt_bytes(unreadable)
        found: list[Finding] = []
        done = reported = 0
        known: dict[bytes, bytes | None] = {}
        for entry in manifest.entries:
            if entry.digest not in known:
                known[entry.digest] = await self._verify_file(name.project, entry.digest)
            damaged = known[entry.digest]
            if damaged is not None:
                found.append(Finding(entry.path, entry.digest, damaged))
            done += entry.size
            if done - reported >= _REPORT_BYTES:
                yield Report(done, manifest.size, tuple(found))
                reported, found = done, []
        yield Report(done, manifest.size, tuple(found))

    async def _verify_file(self, project: str, digest: bytes) -> bytes | None:
        """Return the first damaged chunk of a file; None when it is sound."""
        for _ in range(_ATTEMPTS):
            place = await self._database.read(partial(_locate, project, digest))
            if place.lost is not None:
                return place.lost
            damaged: list[ChunkRef] = []
            for span in plan_spans(place.refs):
                damaged += (await self._read(span))[1]
            if not damaged:
                await self._mark_sound(project, place)
                return None
            marked = await self._mark(project, damaged)
            if marked:
                return marked[0].digest
        # Moved again and again while it was read.
        raise unavailable()

    async def _mark(self, project: str, damaged: Sequence[ChunkRef]) -> list[ChunkRef]:
        """Record damage; return the chunks that still lie where they could not be read."""
        return [
            ref
            for ref in damaged
            if await self._database.write(partial(_mark_damaged, project, ref))
        ]

    async def _mark_sound(self, project: str, place: _Place) -> None:
        """Take back that something is damaged, if it is said to be."""
        if place.is_suspect:
            refs = list(set(place.refs))
            await self._database.write(lambda tx: store.mark_sound(tx.connection, project, refs))

    async def _read(self, span: Span) -> tuple[list[Chunk], list[ChunkRef]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, salvage_span, self._blobs, span)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file's chunks lie; what of it is lost altogether, if anything is."""

    refs: tuple[ChunkRef, ...]
    is_suspect: bool = False
    lost: bytes | None = None


def _chunks_of(pack: PackRow, tx: Transaction) -> list[ChunkRef]:
    return sweep_store.chunks_of(tx.connection, pack.pack)


def _mark_damaged(project: str, ref: ChunkRef, tx: Transaction) -> bool:
    return store.mark_damaged(tx.connection, project, ref)


def _locate(project: str, digest: bytes, tx: Transaction) -> _Place:
    sound = store.find_files(tx.connection, project, [digest])
    file = sound.get(digest)
    if file is None:
        file = store.find_files(tx.connection, project, [digest], damaged=True).get(digest)
    if file is None:
        return _Place((), lost=digest)
    refs = store.find_chunks(tx.connection, project, list(set(file.chunks)), damaged=True)
    for chunk in file.chunks:
        if chunk not in refs:
            return _Place((), lost=chunk)
    return _Place(tuple(refs[chunk] for chunk in file.chunks), is_suspect=digest not in sound)
