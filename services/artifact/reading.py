"""Reading: ranges of files out of packs, every chunk verified before it is passed on."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate

from services.artifact import store
from services.artifact.blobs import BlobStore
from services.artifact.domain import (
    MESSAGE_BYTES,
    ChunkRef,
    StoredFile,
    bytes_missing,
    corrupt_bytes,
)
from services.artifact.packs import CorruptChunkError, plan_spans, read_span
from services.common.database import Database, Transaction

_WINDOW = 512
_READ_AHEAD = 2


class ContentReader:
    """Read the content of committed files."""

    def __init__(self, *, database: Database, blobs: BlobStore, threads: Executor) -> None:
        self._database = database
        self._blobs = blobs
        self._threads = threads

    async def find(self, project: str, digest: bytes) -> StoredFile:
        """Return a committed file, be it damaged, or refuse with BYTES_MISSING."""

        def find(tx: Transaction) -> StoredFile | None:
            found = store.find_files(tx.connection, project, [digest], damaged=True)
            return found.get(digest)

        file = await self._database.read(find)
        if file is None:
            raise bytes_missing(digest)
        return file

    async def read_all(self, project: str, file: StoredFile) -> bytes:
        """Return a whole file that is known to be small."""
        return b"".join([piece async for piece in self.read(project, file)])

    async def read(
        self, project: str, file: StoredFile, *, offset: int = 0, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a range of a file in pieces of at most 1 MiB.

        Raises:
            ServiceError: CORRUPT_BYTES; the chunk then counts as missing, so that pushing the same
                bytes repairs it.
        """
        end = file.size if limit is None else min(file.size, offset + limit)
        if offset >= end:
            return
        first, start = _locate(file, offset)
        last, _ = _locate(file, end - 1)
        skip, left = offset - start, end - offset
        async for data in self._verified(project, file, first, last + 1):
            view = memoryview(data)[skip : skip + left]
            skip = max(skip - len(data), 0)
            left -= len(view)
            for at in range(0, len(view), MESSAGE_BYTES):
                yield bytes(view[at : at + MESSAGE_BYTES])

    async def read_unverified(self, project: str, file: StoredFile) -> AsyncIterator[bytes]:
        """Yield a file's stored bytes, for a caller who verifies the whole."""
        async for data in self._spans(project, file, 0, len(file.chunks), verify=False):
            yield data

    async def _verified(
        self, project: str, file: StoredFile, first: int, end: int
    ) -> AsyncIterator[bytes]:
        try:
            async for data in self._spans(project, file, first, end, verify=True):
                yield data
        except CorruptChunkError as error:
            chunk = error.ref
            await self._database.write(
                lambda tx: store.mark_damaged(tx.connection, project, chunk=chunk, file=file.digest)
            )
            raise corrupt_bytes(chunk.digest) from None

    async def _spans(
        self, project: str, file: StoredFile, first: int, end: int, *, verify: bool
    ) -> AsyncIterator[bytes]:
        """Yield spans of chunks in order, reading ahead of the one that is yielded."""
        loop = asyncio.get_running_loop()
        ahead: deque[asyncio.Future[bytes]] = deque()
        try:
            for start in range(first, end, _WINDOW):
                window = file.chunks[start : min(end, start + _WINDOW)]
                for span in plan_spans(await self._refs(project, window)):
                    read: Callable[[], bytes] = partial(read_span, self._blobs, span, verify=verify)
                    ahead.append(loop.run_in_executor(self._threads, read))
                    if len(ahead) > _READ_AHEAD:
                        yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for future in ahead:
                if not future.cancel() and not future.cancelled():
                    future.exception()

    async def _refs(self, project: str, digests: tuple[bytes, ...]) -> list[ChunkRef]:
        found = await self._database.read(
            lambda tx: store.find_chunks(tx.connection, project, digests, damaged=True)
        )
        for digest in digests:
            if digest not in found:
                raise corrupt_bytes(digest)
        return [found[digest] for digest in digests]


def _locate(file: StoredFile, offset: int) -> tuple[int, int]:
    """Return the index of the chunk that holds a byte, and where that chunk begins."""
    ends = list(accumulate(file.lengths))
    index = bisect_right(ends, offset)
    return index, ends[index] - file.lengths[index]
