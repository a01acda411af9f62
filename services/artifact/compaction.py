"""Compaction: packs of which little is needed are rewritten, so that deletion frees bytes.

What lives is copied, verified, made durable in a new pack; only then do its chunks
lie there, and the old pack, empty now, goes as any empty pack does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from itertools import groupby

from services.artifact import store, sweep_store
from services.artifact.blobs import BlobStore
from services.artifact.domain import Chunk, ChunkRef, Pack
from services.artifact.packs import CorruptChunkError, PackFolder, PackWriter, Span, read_span
from services.artifact.sweep_store import PackRow
from services.common.database import Database, Transaction

logger = logging.getLogger(__name__)

_PACKS_AT_ONCE = 64


class Compaction:
    """Rewrites packs of which little is needed."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        folder: PackFolder,
        threads: Executor,
        clock: Callable[[], datetime],
        share: float,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._folder = folder
        self._threads = threads
        self._clock = clock
        self._share = share

    async def compact(self) -> int:
        """Rewrite sparse packs once; return how many there were."""
        packs = await self._database.read(
            lambda tx: sweep_store.sparse_packs(
                tx.connection, share=self._share, limit=_PACKS_AT_ONCE
            )
        )
        for project, own in groupby(packs, key=lambda pack: pack.project):
            await self._rewrite(project, list(own))
        return len(packs)

    async def _rewrite(self, project: str, packs: list[PackRow]) -> None:
        """Copy what lives in some packs of a project into as few new ones as it fills."""
        loop = asyncio.get_running_loop()
        writer = self._folder.create()
        old: dict[bytes, ChunkRef] = {}
        try:
            for pack in packs:
                chunks = await self._database.read(partial(_chunks_of, pack.pack))
                for ref in chunks:
                    chunk = await loop.run_in_executor(self._threads, self._read, ref)
                    if chunk is None:
                        await self._database.write(partial(_mark, project, ref))
                        continue
                    if not writer.has_room([chunk]):
                        await self._store(project, writer, old)
                        writer, old = self._folder.create(), {}
                    await loop.run_in_executor(self._threads, writer.append, [chunk])
                    old[ref.digest] = ref
            if writer.size:
                await self._store(project, writer, old)
        finally:
            await loop.run_in_executor(self._threads, writer.discard)

    def _read(self, ref: ChunkRef) -> Chunk | None:
        """Return a chunk, verified; None when it is damaged."""
        span = Span(ref.pack, ref.offset, ref.length, (ref,))
        try:
            return Chunk(ref.digest, read_span(self._blobs, span))
        except CorruptChunkError:
            return None

    async def _store(self, project: str, writer: PackWriter, old: dict[bytes, ChunkRef]) -> None:
        """Make a new pack durable and let the copied chunks lie there."""
        name, size, now = writer.pack, writer.size, self._clock()
        await self._database.write(
            lambda tx: store.begin_pack(
                tx.connection, project, name, size, now=now, is_limited=False
            )
        )
        loop = asyncio.get_running_loop()
        pack = await loop.run_in_executor(self._threads, writer.finish, self._blobs)
        await self._database.write(partial(_move, project, pack, old))
        logger.info("packs compacted", extra={"project": project, "bytes": size})


def _chunks_of(pack: str, tx: Transaction) -> list[ChunkRef]:
    return sweep_store.chunks_of(tx.connection, pack)


def _mark(project: str, ref: ChunkRef, tx: Transaction) -> None:
    store.mark_damaged(tx.connection, project, ref)


def _move(project: str, pack: Pack, old: dict[bytes, ChunkRef], tx: Transaction) -> None:
    if store.mark_sealed(tx.connection, pack.pack):
        sweep_store.move_chunks(tx.connection, project, _moves(pack, old))


def _moves(pack: Pack, old: dict[bytes, ChunkRef]) -> Iterator[tuple[ChunkRef, ChunkRef]]:
    return ((old[new.digest], new) for new in pack.chunks)
