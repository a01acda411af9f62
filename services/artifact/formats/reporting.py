"""The report on an artifact's formats: each file judged once, where its bytes lie."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from services.artifact import store as chunk_store
from services.artifact.blobs import BlobStore
from services.artifact.depot import Depot
from services.artifact.domain import ChunkRef, corrupt_bytes
from services.artifact.formats import store
from services.artifact.formats.domain import Finding
from services.artifact.formats.judging import VERSION, judge
from services.artifact.manifest import ManifestEntry
from services.artifact.storage.packs import CorruptChunkError, Span, read_span
from services.common.names import ArtifactName
from services.common.sql.database import Database, Transaction

_BUFFER_BYTES = 64 * 1024


class Reporting:
    """Says what an artifact's files are."""

    def __init__(
        self, *, database: Database, blobs: BlobStore, depot: Depot, threads: Executor
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._depot = depot
        self._threads = threads

    async def report(self, name: ArtifactName) -> list[tuple[ManifestEntry, Finding]]:
        """Return every file with what it is.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, CORRUPT_BYTES.
        """
        entries = (await self._depot.manifest(name)).entries
        keys = [_key(entry) for entry in entries]
        known = await self._database.read(
            lambda tx: store.find_findings(tx.connection, name.project, keys, version=VERSION)
        )
        new: dict[store.Key, Finding] = {}
        for entry in entries:
            if _key(entry) not in known and _key(entry) not in new:
                new[_key(entry)] = await self._judge(name.project, entry)
        await self._database.write(
            lambda tx: store.add_findings(tx.connection, name.project, new, version=VERSION)
        )
        found = known | new
        return [(entry, found[_key(entry)]) for entry in entries]

    async def _judge(self, project: str, entry: ManifestEntry) -> Finding:
        refs = await self._database.read(partial(_refs, project, entry.digest))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, _judge, self._blobs, entry, refs)
        except CorruptChunkError as error:
            raise corrupt_bytes(error.ref.digest) from None


def _key(entry: ManifestEntry) -> store.Key:
    return entry.digest, PurePosixPath(entry.path).name


def _refs(project: str, digest: bytes, tx: Transaction) -> list[ChunkRef]:
    file = chunk_store.find_files(tx.connection, project, [digest], damaged=True).get(digest)
    if file is None:
        raise corrupt_bytes(digest)
    chunks = list(set(file.chunks))
    found = chunk_store.find_chunks(tx.connection, project, chunks, damaged=True)
    for chunk in chunks:
        if chunk not in found:
            raise corrupt_bytes(chunk)
    return [found[chunk] for chunk in file.chunks]


def _judge(blobs: BlobStore, entry: ManifestEntry, refs: Sequence[ChunkRef]) -> Finding:
    stored = io.BufferedReader(_StoredFile(blobs, refs), _BUFFER_BYTES)
    return judge(entry.path, entry.size, cast("BinaryIO", stored))


class _StoredFile(io.RawIOBase):
    """A stored file as a seekable stream; every chunk is verified as it is read."""

    def __init__(self, blobs: BlobStore, refs: Sequence[ChunkRef]) -> None:
        self._blobs = blobs
        self._refs = refs
        self._ends = list(accumulate(ref.length for ref in refs))
        self._at = 0
        self._number = -1
        self._chunk = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io passes
        if self._at >= self._size:
            return 0
        number = next(n for n, end in enumerate(self._ends) if end > self._at)
        if number != self._number:
            ref = self._refs[number]
            span = Span(ref.pack, ref.offset, ref.length, (ref,))
            self._number, self._chunk = number, read_span(self._blobs, span)
        start = self._at - (self._ends[number] - self._refs[number].length)
        piece = self._chunk[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0
