"""Compaction: packs of which little is needed are rewritten, so that deletion frees bytes.

What lives is copied, verified, made durable in a new pack; only then do its chunks
lie there, and the old pack, empty now, goes as any empty pack does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from itertools import groupby

from services.artifact import store
from services.artifact.blobs import BlobStore
from services.artifact.domain import Chunk, ChunkRef, Garbage, GarbageKind, Pack
from services.artifact.storage import sweep_store
from services.artifact.storage.packs import PackFolder, PackWriter, Span, plan_spans, salvage_span
from services.artifact.storage.sweep_store import PackRow
from services.common.errors import ServiceError
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

_PACKS_AT_ONCE = 256
_PREVIEW_PACKS = 100_000


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

    def preview(self, tx: Transaction, project: str | None) -> list[Garbage]:
        """Return the packs that would be rewritten as things are in a transaction."""
        packs = sweep_store.sparse_packs(
            tx.connection, project, share=self._share, limit=_PREVIEW_PACKS
        )
        return [
            Garbage(
                GarbageKind.SPARSE_PACK,
                f"projects/{pack.project}: pack {pack.pack}",
                pack.size - pack.live,
                f"of its {pack.size} bytes only {pack.live} are needed; those are moved",
            )
            for pack in packs
        ]

    async def compact(self) -> int:
        """Rewrite sparse packs once; return how many there were."""
        packs = await self._database.read(
            lambda tx: sweep_store.sparse_packs(
                tx.connection, None, share=self._share, limit=_PACKS_AT_ONCE
            )
        )
        for project, own in groupby(packs, key=lambda pack: pack.project):
            await _Copy(self, project).rewrite(list(own))
        return len(packs)

    async def read(self, span: Span) -> tuple[list[Chunk], list[ChunkRef]]:
        """Return the sound chunks of a span, and the damaged ones."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, salvage_span, self._blobs, span)

    async def chunks_of(self, pack: str) -> list[ChunkRef]:
        """Return what lies in a pack."""
        return await self._database.read(lambda tx: sweep_store.chunks_of(tx.connection, pack))

    async def mark_damaged(self, project: str, ref: ChunkRef) -> None:
        """Record that a chunk cannot be read."""
        await self._database.write(lambda tx: store.mark_damaged(tx.connection, project, ref))

    def create_pack(self) -> PackWriter:
        """Begin a pack."""
        return self._folder.create()

    async def append(self, writer: PackWriter, chunk: Chunk) -> None:
        """Append a chunk to a pack."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, writer.append, [chunk])

    async def store(self, project: str, writer: PackWriter, old: dict[bytes, ChunkRef]) -> None:
        """Make a new pack durable and let the copied chunks lie there."""
        name, size, now = writer.pack, writer.size, self._clock()
        await self._database.write(
            lambda tx: store.begin_pack(
                tx.connection, project, name, size, now=now, is_limited=False
            )
        )
        loop = asyncio.get_running_loop()
        try:
            pack = await loop.run_in_executor(self._threads, writer.finish, self._blobs)
        except ServiceError:
            # What did not come to lie there takes none of the project's room.
            now = self._clock()
            await self._database.write(
                lambda tx: sweep_store.give_up_pack(tx.connection, name, now=now)
            )
            raise
        await self._database.write(partial(_move, project, pack, old))
        logger.info("packs compacted", extra={"project": project, "bytes": size})

    async def discard(self, writer: PackWriter) -> None:
        """Remove what was written of a pack."""
        await asyncio.get_running_loop().run_in_executor(self._threads, writer.discard)


class _Copy:
    """The copying of what lives in some packs of a project into as few new ones as it fills."""

    def __init__(self, compaction: Compaction, project: str) -> None:
        self._compaction = compaction
        self._project = project
        self._writer = compaction.create_pack()
        self._old: dict[bytes, ChunkRef] = {}

    async def rewrite(self, packs: Sequence[PackRow]) -> None:
        """Copy, and store each new pack once it is full."""
        try:
            for pack in packs:
                refs = await self._compaction.chunks_of(pack.pack)
                by_digest = {ref.digest: ref for ref in refs}
                for span in plan_spans(refs):
                    sound, damaged = await self._compaction.read(span)
                    for ref in damaged:
                        await self._compaction.mark_damaged(self._project, ref)
                    for chunk in sound:
                        await self._append(chunk, by_digest[chunk.digest])
            await self._store()
        finally:
            await self._compaction.discard(self._writer)

    async def _append(self, chunk: Chunk, ref: ChunkRef) -> None:
        if not self._writer.has_room([chunk]):
            await self._store()
        await self._compaction.append(self._writer, chunk)
        self._old[chunk.digest] = ref

    async def _store(self) -> None:
        if self._writer.size:
            await self._compaction.store(self._project, self._writer, self._old)
            self._writer, self._old = self._compaction.create_pack(), {}


def _move(project: str, pack: Pack, old: dict[bytes, ChunkRef], tx: Transaction) -> None:
    if store.mark_sealed(tx.connection, pack.pack):
        sweep_store.move_chunks(tx.connection, project, _moves(pack, old))


def _moves(pack: Pack, old: dict[bytes, ChunkRef]) -> Iterator[tuple[ChunkRef, ChunkRef]]:
    return ((old[new.digest], new) for new in pack.chunks)
