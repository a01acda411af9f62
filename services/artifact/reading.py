"""Reading: ranges of files out of packs, every chunk verified before it is passed on."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from services.artifact import store
from services.artifact.blobs import BlobStore, unavailable
from services.artifact.domain import (
    MESSAGE_BYTES,
    ChunkRef,
    StoredFile,
    bytes_missing,
    corrupt_bytes,
    limit_exceeded,
)
from services.artifact.storage.packs import CorruptChunkError, plan_spans, read_span
from services.common.sql.database import Database, Transaction

_WINDOW = 512
_READ_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Located:
    """A committed file, and where a run of its chunks lies, from the first one wanted."""

    file: StoredFile
    first: int
    refs: Mapping[bytes, ChunkRef]


class ContentReader:
    """Read the content of committed files."""

    def __init__(self, *, database: Database, blobs: BlobStore, threads: Executor) -> None:
        self._database = database
        self._blobs = blobs
        self._threads = threads

    def locate(self, tx: Transaction, project: str, digest: bytes, *, offset: int = 0) -> Located:
        """Return a committed file, be it damaged, and where its bytes from an offset on lie.

        Raises:
            ServiceError: BYTES_MISSING.
        """
        file = store.find_files(tx.connection, project, [digest], damaged=True).get(digest)
        if file is None:
            raise bytes_missing(digest)
        first = _chunk_at(file, offset)
        window = file.chunks[first : first + _WINDOW]
        refs = store.find_chunks(tx.connection, project, window, damaged=True)
        return Located(file, first, refs)

    async def read_all(self, project: str, digest: bytes, *, maximum: int) -> bytes:
        """Return a whole file, refused with LIMIT_EXCEEDED when larger than a maximum."""
        located = await self._database.read(lambda tx: self.locate(tx, project, digest))
        if located.file.size > maximum:
            raise limit_exceeded("manifest_bytes", maximum)
        return b"".join([piece async for piece in self.read(project, located)])

    async def read(
        self,
        project: str,
        located: Located,
        *,
        offset: int = 0,
        limit: int | None = None,
        verify: bool = True,
    ) -> AsyncIterator[memoryview]:
        """Yield a range of a file, located at its offset, in pieces of at most 1 MiB.

        Raises:
            ServiceError: CORRUPT_BYTES; the chunk then counts as missing, so that pushing the same
                bytes repairs it.
        """
        file = located.file
        end = file.size if limit is None else min(file.size, offset + limit)
        if offset >= end:
            return
        skip, left = offset - sum(file.lengths[: located.first]), end - offset
        last = _chunk_at(file, end - 1)
        async for data in self._watched(project, located, last + 1, verify=verify):
            view = memoryview(data)[skip : skip + left]
            skip = max(skip - len(data), 0)
            left -= len(view)
            for at in range(0, len(view), MESSAGE_BYTES):
                yield view[at : at + MESSAGE_BYTES]

    async def read_unverified(self, project: str, file: StoredFile) -> AsyncIterator[bytes]:
        """Yield a file's stored bytes, for a caller who verifies the whole."""
        located = Located(file, 0, {})
        async for data in self._spans(project, located, len(file.chunks), verify=False):
            yield data

    async def _watched(
        self, project: str, located: Located, end: int, *, verify: bool
    ) -> AsyncIterator[bytes]:
        """Yield spans of chunks; one that is found damaged counts as missing from then on."""
        try:
            async for data in self._spans(project, located, end, verify=verify):
                yield data
        except CorruptChunkError as error:
            ref = error.ref
            if not await self._database.write(
                lambda tx: store.mark_damaged(tx.connection, project, ref)
            ):
                raise unavailable() from None  # moved while it was read: there again on retry
            raise corrupt_bytes(error.ref.digest) from None

    async def _spans(
        self, project: str, located: Located, end: int, *, verify: bool
    ) -> AsyncIterator[bytes]:
        """Yield spans of chunks in order, reading ahead of the one that is yielded."""
        loop = asyncio.get_running_loop()
        ahead: deque[asyncio.Future[bytes]] = deque()
        try:
            for start in range(located.first, end, _WINDOW):
                window = located.file.chunks[start : min(end, start + _WINDOW)]
                known = located.refs if start == located.first else {}
                for span in plan_spans(await self._refs(project, window, known)):
                    work = partial(read_span, self._blobs, span, verify=verify)
                    ahead.append(loop.run_in_executor(self._threads, work))
                    if len(ahead) > _READ_AHEAD:
                        yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for future in ahead:
                if not future.cancel() and not future.cancelled():
                    future.exception()

    async def _refs(
        self, project: str, digests: tuple[bytes, ...], known: Mapping[bytes, ChunkRef]
    ) -> list[ChunkRef]:
        found = known or await self._database.read(
            lambda tx: store.find_chunks(tx.connection, project, digests, damaged=True)
        )
        for digest in digests:
            if digest not in found:
                raise bytes_missing(digest)
        return [found[digest] for digest in digests]


def _chunk_at(file: StoredFile, offset: int) -> int:
    """Return the index of the chunk that holds a byte; the count of chunks past the end."""
    return bisect_right(list(accumulate(file.lengths)), offset)
